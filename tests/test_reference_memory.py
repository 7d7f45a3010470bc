"""What a model remembers of its training images, and what it does with that in evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idml_hf import IDMLConfig, IDMLForMetricLearning, IDMLModel
from idml_hf.evaluation import retrieval_metrics
from idml_hf.reference_memory import ReferenceMemory
from idml_hf.training import Run
from idml_hf.training.models import build_model


def units(number, d=5, seed=0):
    return torch.nn.functional.normalize(torch.randn(number, d, generator=torch.Generator().manual_seed(seed)))


def memory_of(images, size):
    memory = ReferenceMemory(size, images.shape[1])
    memory.remember(images)
    return memory


def build(**config):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 8, "num_train_classes": 4, "reference_size": 40}
    return IDMLForMetricLearning.from_backbone("test_resnet", pretrained=False, **(sizes | config))


def trained(**config):
    model = build(**config).train()
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model(images, labels=torch.arange(4).repeat_interleave(6))
    return model.eval()


class TestMemory:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 60), st.integers(1, 90), st.integers(0, 2**31))
    def test_against_a_loop_over_images(self, size, number, seed):
        images, queries = units(number, seed=seed), units(3, seed=seed + 1)
        memory = ReferenceMemory(size, 5)
        for part in images.split(7):
            memory.remember(part)
        centre, density = memory(queries)
        kept = images[-size:].numpy() if number > size else images.numpy()
        for i, query in enumerate(queries.numpy()):
            near = sorted(kept, key=lambda e: -(e @ query))[: math.ceil(0.1 * len(kept))]
            np.testing.assert_allclose(centre[i], np.mean(near, 0), atol=1e-5)
            distances = [((query - e) ** 2).sum() for e in near]
            assert density[i].item() == pytest.approx(math.exp(-np.mean(distances)), rel=1e-4)

    def test_empty_it_says_nothing(self):
        centre, density = ReferenceMemory(10, 5)(units(3))
        assert not centre.any() and density.tolist() == [1, 1, 1]

    def test_under_autocast_and_in_double_precision(self):
        images, queries = units(50), units(4, seed=1)
        memory = memory_of(images, 50)
        expected = memory(queries)
        with torch.autocast("cpu", torch.bfloat16):
            assert all(torch.equal(a, b) for a, b in zip(memory(queries), expected, strict=True))
        for double, single in zip(memory(queries.double()), expected, strict=True):
            assert double.dtype == torch.float64
            torch.testing.assert_close(double.float(), single)

    def test_it_weakens_hubs(self):
        """Images share a direction that says nothing of their class, more or less of it: the more, the more a hub."""
        g = torch.Generator().manual_seed(0)

        def draw(classes):
            own = torch.randn(classes, 16, generator=g).repeat_interleave(4, 0) * 0.5
            points = own + 0.25 * torch.randn(classes * 4, 16, generator=g)
            shared = torch.randn(classes * 4, 1, generator=g).exp() * torch.ones(1, 16)
            return torch.nn.functional.normalize(points + shared), np.repeat(np.arange(classes), 4)

        seen, (test, labels) = draw(100)[0], draw(50)
        centre, density = memory_of(seen, 400)(test)
        centred = torch.nn.functional.normalize(test - 0.7 * centre)
        plain, ours = (retrieval_metrics(x.numpy(), labels, ks=(1,)) for x in (test, centred))
        assert ours["recall_at_1"] > plain["recall_at_1"] + 0.03 and ours["map_at_r"] > plain["map_at_r"] + 0.03
        similarity = (test @ test.T).fill_diagonal_(-1)
        nearest_of = torch.bincount(similarity.argmax(1), minlength=200)
        hubs, others = density[nearest_of >= 3], density[nearest_of == 0]
        assert hubs.mean() > others.mean()


class TestModel:
    def test_training_fills_it_and_does_not_use_it(self):
        model = build().train()
        images, labels = torch.randn(8, 3, 32, 32), torch.arange(4).repeat_interleave(2)
        model.idml.backbone.eval()
        with torch.no_grad():
            first = model(images, labels=labels).semantic_embeds
            again = model(images, labels=labels).semantic_embeds
        assert torch.equal(first, again)
        assert model.idml.reference.seen == 16
        torch.testing.assert_close(model.idml.reference.embeddings[:8], first)

    def test_evaluation_takes_off_what_is_shared(self):
        model = trained(reference_weight=0.6)
        images = torch.randn(5, 3, 32, 32)
        with torch.no_grad():
            out = model.idml(images)
            model.config.reference_weight = model.idml.config.reference_weight = 0.0
            plain = model.idml(images)
        centre, density = model.idml.reference(plain.semantic_embeds)
        expected = torch.nn.functional.normalize(plain.semantic_embeds - 0.6 * centre)
        torch.testing.assert_close(out.semantic_embeds, expected)
        torch.testing.assert_close(out.pooler_output, expected)
        assert not torch.allclose(out.semantic_embeds, plain.semantic_embeds, atol=1e-3)
        # the uncertainty knows of the memory on both sides, so that plain and introspective are judged alike
        torch.testing.assert_close(out.uncertainty, plain.uncertainty)
        model.idml.reference.forget()
        with torch.no_grad():
            torch.testing.assert_close(model.idml(images).uncertainty * density, out.uncertainty)

    def test_an_image_alone_decides(self):
        model, images = trained(), torch.randn(6, 3, 32, 32)
        with torch.no_grad():
            whole, part = model.idml(images), model.idml(images[2:3])
        torch.testing.assert_close(whole.semantic_embeds[2:3], part.semantic_embeds, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(whole.uncertainty[2:3], part.uncertainty, atol=1e-5, rtol=1e-4)

    def test_it_is_saved_with_the_model(self, tmp_path):
        model, images = trained(), torch.randn(3, 3, 32, 32)
        model.idml.save_pretrained(tmp_path)
        loaded, info = IDMLModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values()) and loaded.reference.seen == 24
        with torch.no_grad():
            torch.testing.assert_close(loaded(images).semantic_embeds, model.idml(images).semantic_embeds)

    def test_it_stays_in_full_precision(self, tmp_path):
        trained().idml.save_pretrained(tmp_path)
        loaded = IDMLModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert loaded.reference.embeddings.dtype == torch.float32
        assert loaded.backbone.conv1[0].weight.dtype == torch.bfloat16

    def test_fine_tuning_forgets_the_images_of_another_data_set(self, tmp_path):
        from idml_hf import IDMLImageProcessor

        trained().idml.save_pretrained(tmp_path)
        IDMLImageProcessor.from_backbone("test_resnet", 32).save_pretrained(tmp_path)
        run = Run(output=str(tmp_path / "out"), model=str(tmp_path))
        assert not build_model(run, list("abcdefg"))[0].idml.reference.embeddings.any()

    def test_models_that_rank_nothing_remember_nothing(self):
        assert build(uncertainty_ranking=0.0).idml.reference is None
        assert build(form="released", uncertainty_activation="l2").idml.reference is None


class TestConfiguration:
    def test_the_plain_form_is_plain(self):
        assert IDMLConfig(form="none").reference_weight == 0
        assert IDMLConfig().reference_weight == 0.7
        assert IDMLConfig(form="none", reference_weight=0.5).reference_weight == 0.5

    @pytest.mark.parametrize("wrong", [{"reference_size": 0}, {"reference_weight": 1.0}, {"reference_weight": -0.1}])
    def test_what_makes_no_sense(self, wrong):
        with pytest.raises(ValueError, match="reference_size must be positive, and reference_weight"):
            IDMLConfig(**wrong)
