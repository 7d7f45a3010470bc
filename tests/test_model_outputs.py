"""What the models return on request, which losses a classifier has, and their export with any number of images."""

from __future__ import annotations

import pytest
import torch

from idml_hf import IDMLForImageClassification, IDMLForMetricLearning, IDMLModel

CLASSES = [IDMLModel, IDMLForMetricLearning, IDMLForImageClassification]


def build(cls, name="resnet18", **config):
    own = {IDMLForMetricLearning: {"num_train_classes": 3}, IDMLForImageClassification: {"num_labels": 3}}
    torch.manual_seed(0)
    sizes = {"embedding_dim": 8, "reference_size": 20} | own.get(cls, {})
    return cls.from_backbone(name, pretrained=False, **(sizes | config))


class TestHiddenStates:
    @pytest.mark.parametrize("cls", CLASSES)
    @pytest.mark.parametrize("head", ["stages", "linear"])
    @pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
    @torch.no_grad()
    def test_they_come_where_they_are_asked_for_and_change_nothing(self, cls, head, name):
        model, images = build(cls, name, uncertainty_head=head, image_size=64), torch.randn(2, 3, 64, 64)
        plain, asked = model(images), model(images, output_hidden_states=True)
        assert plain.hidden_states is None
        _, expected = model.trunk.forward_intermediates(images)
        assert len(asked.hidden_states) == len(expected) > 4
        assert all(torch.equal(a, b) for a, b in zip(asked.hidden_states, expected, strict=True))
        assert all(torch.equal(asked[key], plain[key]) for key in plain)
        model.config.output_hidden_states = model.base_model.config.output_hidden_states = True
        assert len(model(images).hidden_states) == len(expected)
        assert model(images, output_hidden_states=False).hidden_states is None

    def test_with_mixed_images_the_loss_is_the_same(self):
        images, labels = torch.randn(4, 3, 64, 64), torch.arange(4) // 2
        mixed = {"mixed_pixel_values": images.flip(0), "mixed_classes": labels.flip(0), "mix_ratio": torch.tensor(0.3)}
        losses = [
            build(IDMLForMetricLearning).train()(images, labels=labels, output_hidden_states=asked, **mixed).loss
            for asked in (False, True)
        ]
        assert torch.equal(*losses)

    def test_an_architecture_without_them_says_so(self, monkeypatch):
        model = build(IDMLModel, uncertainty_head="linear")
        monkeypatch.delattr(type(model.trunk), "forward_intermediates")
        assert model(torch.randn(1, 3, 64, 64)).semantic_embeds.isfinite().all()
        with pytest.raises(ValueError, match="output_hidden_states: resnet18 does not give"):
            model(torch.randn(1, 3, 64, 64), output_hidden_states=True)


class TestReturnDict:
    @pytest.mark.parametrize("cls", CLASSES)
    @torch.no_grad()
    def test_a_tuple_where_argument_or_configuration_ask_for_it(self, cls):
        model, images = build(cls), torch.randn(2, 3, 64, 64)
        expected = model(images).to_tuple()
        found = [model(images, return_dict=False)]
        model.config.return_dict = model.base_model.config.return_dict = False
        found.append(model(images))
        for values in found:
            assert isinstance(values, tuple)
            assert all(torch.equal(a, b) for a, b in zip(values, expected, strict=True))


class TestProblemType:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def test_one_class_each(self):
        model = build(IDMLForImageClassification, problem_type="single_label_classification")
        out = model(self.images, labels=torch.tensor([0, 1, 2, 0]))
        expected = torch.nn.functional.cross_entropy(out.logits, torch.tensor([0, 1, 2, 0]))
        assert torch.equal(out.loss, expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
    def test_several_classes_each(self, dtype, tmp_path):
        labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
        model = build(IDMLForImageClassification, problem_type="multi_label_classification")
        out = model(self.images, labels=labels.to(dtype))
        probability = out.logits.sigmoid()
        expected = -(labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()
        torch.testing.assert_close(out.loss, expected)
        model.save_pretrained(tmp_path)
        loaded = IDMLForImageClassification.from_pretrained(tmp_path)
        assert loaded.config.problem_type == "multi_label_classification"
        with torch.no_grad():
            torch.testing.assert_close(loaded(self.images, labels=labels.to(dtype)).loss, out.loss.detach())
        model.train()(self.images, labels=labels.to(dtype)).loss.backward()
        assert model.classifier.weight.grad.norm() > 1e-3

    def test_regression_is_refused(self):
        with pytest.raises(ValueError, match='problem_type="regression"'):
            build(IDMLForImageClassification, problem_type="regression", num_labels=1)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_export_with_any_number_of_images(cls, name):
    model = build(cls, name, image_size=64).eval()
    if model.base_model.reference is not None:
        model.base_model.reference.remember(torch.nn.functional.normalize(torch.randn(12, 8)))
    example = {"pixel_values": torch.randn(2, 3, 64, 64)}
    exported = torch.export.export(model, (), example, dynamic_shapes={"pixel_values": {0: torch.export.Dim.DYNAMIC}})
    for size in (1, 2, 5):
        images = torch.randn(size, 3, 64, 64)
        with torch.no_grad():
            expected, found = model(images), exported.module()(pixel_values=images)
        key = "logits" if cls is IDMLForImageClassification else "semantic_embeds"
        for name_of in (key, "uncertainty"):
            torch.testing.assert_close(found[name_of], expected[name_of], rtol=1e-4, atol=1e-5)
