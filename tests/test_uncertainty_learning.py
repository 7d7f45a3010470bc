"""How the uncertainty learns: by ranking images and their degraded copies, without touching retrieval."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from idml_hf import IDMLConfig, IDMLForMetricLearning, IDMLModel
from idml_hf.losses import LOSSES
from idml_hf.losses.uncertainty_ranking import UncertaintyRanking, ranking_loss
from idml_hf.reference_memory import EMPTY, ReferenceMemory
from idml_hf.training.degradation import _STREAM, DEGRADATIONS, degraded_views


def build(**config):
    torch.manual_seed(0)
    settings = {"embedding_dim": 16, "num_train_classes": 4, "freeze_batch_norm": True}
    return IDMLForMetricLearning.from_backbone("test_resnet", pretrained=False, **(settings | config)).train()


def batch():
    g = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 32, 32, generator=g), torch.arange(4).repeat_interleave(2)


def step(model, views=None):
    """The gradients of the second of two batches: hardness is found among the images of the first."""
    images, labels = batch()
    torch.manual_seed(2)  # margin_dw draws its negatives
    for _ in range(2):
        model.zero_grad()
        model(images, labels=labels, degraded_pixel_values=views).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def ranking_with_memory(size, semantic=None, labels=None, groups=None):
    """The term and its memory, with some images in it."""
    ranking, memory = UncertaintyRanking(size), ReferenceMemory(size, 2)
    if semantic is not None:
        ranking.remember(semantic, torch.tensor(labels), torch.tensor(groups), memory)
    return ranking, memory


class TestRanking:
    def test_against_a_loop_over_pairs(self):
        g = torch.Generator().manual_seed(0)
        scores, targets = torch.randn(9, generator=g), torch.randint(4, (9,), generator=g).float()
        targets[3] = math.nan
        costs = [
            math.log1p(math.exp(-(scores[i] - scores[j]).item() / 0.5))
            for i, j in itertools.product(range(9), repeat=2)
            if targets[i] > targets[j]
        ]
        assert len(costs) > 10
        assert ranking_loss(scores, targets, 0.5).item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)

    def test_no_pair_gives_zero_with_a_gradient_of_zero(self):
        scores = torch.randn(3, requires_grad=True)
        loss = ranking_loss(scores, torch.tensor([1.0, 1.0, math.nan]), 0.25)
        loss.backward()
        assert loss.item() == 0 and scores.grad.abs().sum() == 0

    def test_hardness_is_nearest_wrong_less_nearest_right_of_another_group(self):
        seen = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
        ranking, memory = ranking_with_memory(6, seen, [0, 0, 1, 2], [7, 8, 7, 7])
        query, labels = torch.tensor([[1.0, 0.0]]).expand(4, 2), torch.tensor([0, 0, 2, 3])
        hardness = ranking.hardness(query, labels, torch.tensor([8, 7, 8, 8]), memory)
        # nearest wrong: 0.6, 0.6, 1.0; nearest right: 1.0, then 0.8 without the twin, 0.6; class 3 has none
        torch.testing.assert_close(hardness, torch.tensor([-0.4, -0.2, 0.4, math.nan]), equal_nan=True)

    def test_without_groups_none_is_left_out(self):
        ranking, memory = ranking_with_memory(4)
        u, s, labels = torch.ones(3), torch.eye(2)[[0, 1, 0]], torch.tensor([0, 1, 0])
        ranking(u, s, labels, memory)
        hardness = ranking.hardness(s, labels, ranking.groups[:3], memory)
        torch.testing.assert_close(hardness, torch.tensor([-1.0, -1.0, -1.0]))

    def test_the_memory_holds_the_latest(self):
        ranking, memory = ranking_with_memory(4)
        for first in (0, 3):
            labels = torch.arange(first, first + 3)
            ranking(torch.ones(3), torch.ones(3, 2), labels, memory, labels + 10)
        assert ranking.labels.tolist() == [4, 5, 2, 3] and ranking.groups.tolist() == [14, 15, 12, 13]

    def test_a_batch_that_is_not_finite_is_not_remembered(self):
        ranking, memory = ranking_with_memory(4, torch.eye(2), [0, 1], [5, 6])
        before = {**ranking.state_dict(), **memory.state_dict()}
        before = {name: value.clone() for name, value in before.items()}
        broken = torch.tensor([[1.0, 0.0], [math.nan, 0.0], [0.0, 1.0]])
        ranking(torch.ones(3), broken, torch.tensor([0, 1, 2]), memory, torch.tensor([1, 2, 3]))
        after = {**ranking.state_dict(), **memory.state_dict()}
        assert all(torch.equal(after[name], before[name]) for name in before)

    def test_only_ratios_of_uncertainties_count(self):
        def term(factor):
            ranking, memory = ranking_with_memory(8192, torch.eye(2), [0, 1], [0, 0])
            s = torch.nn.functional.normalize(torch.randn(6, 2, generator=torch.Generator().manual_seed(3)))
            u = torch.rand(6, generator=torch.Generator().manual_seed(4)) * factor
            return ranking(u, s, torch.tensor([0, 1, 0, 1, 0, 1]), memory, views=u[:4]).item()

        assert term(1.0) == pytest.approx(term(7.0), rel=1e-5)

    def test_a_head_learns_to_rank_hard_images_and_degraded_copies(self):
        """Hardness and degradation each show in one value of a feature; the head finds both."""
        torch.manual_seed(0)
        head = torch.nn.Linear(3, 1)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        angle = torch.rand(64) * math.pi / 2
        semantic, labels = torch.stack([angle.cos(), angle.sin()], 1), torch.zeros(64, dtype=torch.int64)
        for _ in range(100):
            features = torch.stack([angle, torch.zeros(64), torch.randn(64)], 1)
            degraded = features + torch.tensor([0.0, 1.0, 0.0])
            u = torch.nn.functional.softplus(head(torch.cat([features, features, degraded]))).squeeze(1)
            optimizer.zero_grad()
            ranking, memory = ranking_with_memory(8192, torch.eye(2), [0, 1], [0, 0])
            ranking(u[:64], semantic, labels, memory, views=u[64:]).backward()
            optimizer.step()
        angle_weight, degradation_weight, noise_weight = head.weight[0].tolist()
        assert angle_weight > 5 * abs(noise_weight) and degradation_weight > 5 * abs(noise_weight)


class TestGradients:
    @pytest.mark.parametrize("form", ["ratio", "none"])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_reach_the_uncertainty_head_under_every_loss(self, loss, form):
        gradients = step(build(loss=loss, form=form))
        assert gradients["idml.uncertainty_head.linear.weight"].norm() > 1e-5

    @pytest.mark.parametrize("form", ["ratio", "none"])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_ranking_term_cannot_help_retrieval(self, loss, form):
        """Whatever is searched by is trained bit for bit the same without it, so "plain + that term" is plain."""
        views = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
        without, with_it = (
            step(build(loss=loss, form=form, uncertainty_ranking=0.0)),
            step(build(loss=loss, form=form), views),
        )
        compared = [name for name in without if "uncertainty_head" not in name]
        assert len(compared) > 10
        assert all(torch.equal(without[name], with_it[name]) for name in compared)

    def test_attached_it_reaches_the_trunk(self):
        one, two = (step(build(uncertainty_detached=False, uncertainty_ranking=w)) for w in (0.0, 1.0))
        assert not torch.equal(one["idml.backbone.conv1.0.weight"], two["idml.backbone.conv1.0.weight"])

    def test_views_train_the_head_and_leave_the_model_in_training(self):
        views = torch.randn(4, 3, 32, 32)
        model = build(freeze_batch_norm=False)
        before = {n: b.clone() for n, b in model.idml.backbone.named_buffers()}
        images, labels = batch()
        model.eval()
        with torch.no_grad():
            model.train()._ranking_term(model(images), labels, None, model.read_degraded(views))
        norms = [m for m in model.idml.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms and all(m.training for m in norms)
        # one batch was seen, not two
        seen = [b - before[n] for n, b in model.idml.backbone.named_buffers() if n.endswith("num_batches_tracked")]
        assert all(n == 1 for n in seen)
        plain, degraded = step(build()), step(build(), views)
        name = "idml.uncertainty_head.linear.weight"
        assert not torch.equal(plain[name], degraded[name])


class TestReadingDegradedImages:
    views = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(6))

    def test_it_leaves_each_module_in_its_mode(self):
        model = build(freeze_batch_norm=False)
        # as somebody may have frozen a part by hand
        model.idml.backbone.layer1.eval()
        modes = [module.training for module in model.modules()]
        model.read_degraded(self.views)
        assert [module.training for module in model.modules()] == modes
        with pytest.raises(RuntimeError):
            model.read_degraded(self.views[:, :1])
        assert [module.training for module in model.modules()] == modes

    def test_the_forward_pass_of_what_was_read_keeps_one_mode(self):
        """No module runs in evaluation, or twice, between the beginning and the end of a training step."""
        model = build(freeze_batch_norm=False)
        features = model.read_degraded(self.views)
        seen = []
        for module in model.idml.backbone.modules():
            module.register_forward_hook(lambda module, *_: seen.append((module, module.training)))
        images, labels = batch()
        model(images, labels=labels, degraded_features=features).loss.backward()
        assert len(seen) > 10 and all(training for _, training in seen)
        assert len({id(module) for module, _ in seen}) >= len(seen) - 20, "only shared activations run more than once"

    def test_read_before_or_inside_it_is_the_same(self):
        images, labels = batch()
        found = []
        for before in (False, True):
            model = build()
            views = {"degraded_features": model.read_degraded(self.views)}
            given = views if before else {"degraded_pixel_values": self.views}
            model(images, labels=labels, **given).loss.backward()
            found.append([p.grad for p in model.parameters() if p.grad is not None])
        assert len(found[0]) > 10 and all(torch.equal(a, b) for a, b in zip(*found, strict=True))

    def test_under_gradient_checkpointing(self):
        images, labels = batch()
        found = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            model = build(freeze_batch_norm=False)
            if checkpointing:
                model.activation_checkpointing_enable()
            model(images, labels=labels, degraded_features=model.read_degraded(self.views)).loss.backward()
            found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert found[0].keys() == found[1].keys()
        assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])

    def test_compiled(self):
        images, labels = batch()
        eager, other = build(), build()
        views = eager.read_degraded(self.views)
        torch.compiler.reset()
        compiled = torch.compile(other, backend="aot_eager")
        for _ in range(2):
            values = [model(images, labels=labels, degraded_features=views).loss.item() for model in (eager, compiled)]
            assert values[0] == pytest.approx(values[1], rel=1e-5)


class TestConfiguration:
    def test_the_papers_loss_has_no_ranking(self):
        assert build(uncertainty_ranking=0.0).ranking is None
        assert build(form="released", uncertainty_activation="l2").ranking is None
        with pytest.raises(ValueError, match="uncertainty_ranking must not be negative"):
            IDMLConfig(uncertainty_ranking=-1.0)

    def test_classes_and_groups_are_saved_with_the_training_model_alone(self, tmp_path):
        model = build()
        step(model)
        model.save_pretrained(tmp_path / "full")
        loaded, info = IDMLForMetricLearning.from_pretrained(tmp_path / "full", output_loading_info=True)
        assert not any(info.values())
        assert torch.equal(loaded.ranking.labels, model.ranking.labels) and (loaded.ranking.labels != EMPTY).any()
        bare, info = IDMLModel.from_pretrained(tmp_path / "full", output_loading_info=True)
        assert not any(info.values()) and not any("ranking" in name for name in bare.state_dict())

    def test_a_model_to_train_on_knows_the_class_of_no_image_it_remembers(self, tmp_path):
        model = build()
        step(model)
        model.idml.save_pretrained(tmp_path)
        loaded = IDMLForMetricLearning.from_pretrained(tmp_path)
        assert loaded.idml.reference.seen == 16 and loaded.ranking.labels.unique().tolist() == [EMPTY]


class TestDegradedViews:
    images = torch.rand(6, 3, 24, 20, generator=torch.Generator().manual_seed(0))

    def apply(self, kind, severity, images=None):
        images = self.images if images is None else images
        draws = torch.rand(len(images), 16, generator=torch.Generator().manual_seed(1))
        amount = torch.full((len(images), 1, 1, 1), severity)
        return DEGRADATIONS[kind](images, images.roll(1, 0), amount, draws)

    @pytest.mark.parametrize("kind", DEGRADATIONS)
    def test_severity_zero_changes_nothing_and_more_changes_more(self, kind):
        assert (self.apply(kind, 0.0) - self.images).abs().max() < 1e-3
        smooth = torch.nn.functional.interpolate(self.images[:, :, :6, :5], size=(24, 20), mode="bicubic")
        change = [(self.apply(kind, v, smooth) - smooth).abs().mean().item() for v in (0.25, 0.5, 1.0)]
        assert 0 < change[0] < change[1] < change[2]

    def test_they_depend_on_the_numbers_alone(self):
        views = degraded_views(self.images, 0.5, seed=1, step=2)
        assert views.shape == (6, 3, 24, 20)
        torch.manual_seed(99)
        assert torch.equal(views, degraded_views(self.images, 0.5, seed=1, step=2))
        for other in ({"seed": 2, "step": 2}, {"seed": 1, "step": 3}, {"seed": 1, "step": 2, "process": 1}):
            assert not torch.equal(views, degraded_views(self.images, 0.5, **other))

    def test_the_second_of_a_pair_is_degraded_more(self):
        coarse = torch.rand(64, 3, 6, 6, generator=torch.Generator().manual_seed(2))
        images = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bicubic")
        weak, strong = degraded_views(images, 1.0, seed=0, step=0).chunk(2)
        sources = images[np.random.default_rng((0, 0, 0, _STREAM, 0)).permutation(64)]
        change_weak, change_strong = ((v - sources).abs().mean((1, 2, 3)) for v in (weak, strong))
        assert (change_strong > change_weak).float().mean() > 0.9
        assert 0.3 < (change_weak < 1e-3).float().mean() < 0.7, "half of the first views are the images themselves"

    def test_the_smallest_batches(self):
        assert degraded_views(self.images[:1], 0.25, seed=0, step=0).shape == (2, 3, 24, 20)
        assert degraded_views(self.images[:2].to(torch.bfloat16), 1.0, 0, 0).dtype == torch.bfloat16
