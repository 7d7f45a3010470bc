"""Mixup and CutMix: the formulas, and draws that depend on the place in the run alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from idml_hf.training.mixing import BatchMixing, mix_batch


def mixing_by(mix, num_classes, alpha=1.0, probability=1.0):
    return BatchMixing(mix, num_classes, alpha, probability)


@pytest.fixture
def batch():
    return torch.rand(8, 3, 20, 30), torch.arange(8) % 5


def test_mixup_is_its_formula(batch):
    images, _ = batch
    mixed, soft = mixing_by("mixup", num_classes=8)(images, torch.arange(8), 3, 7)
    # each label names its image and partner: lam is its own share
    lam = soft[0, 0]
    partner = soft.clone().fill_diagonal_(0).argmax(1)
    assert 0 < lam < 1 and (partner != torch.arange(8)).all()
    torch.testing.assert_close(mixed, lam * images + (1 - lam) * images[partner])
    torch.testing.assert_close(soft, lam * torch.eye(8) + (1 - lam) * torch.eye(8)[partner])


@pytest.mark.parametrize("step", range(6))
def test_cutmix_pastes_a_box_and_shares_the_label_by_area(batch, step):
    images, _ = batch
    mixed, soft = mixing_by("cutmix", num_classes=8)(images, torch.arange(8), 0, step)
    partner = soft.clone().fill_diagonal_(0).argmax(1)
    pasted = (mixed != images).any(1)
    share = pasted[0].float().mean()
    torch.testing.assert_close(soft[0, 0], 1 - share)
    assert torch.equal(torch.where(pasted[:, None], images[partner], images), mixed)
    rows, columns = torch.where(pasted[0])
    if len(rows):
        assert pasted[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_draws_depend_on_the_place_alone(batch, mix):
    images, labels = batch
    mixing = mixing_by(mix, num_classes=5)
    first = mixing(images, labels, 1, 2, 0, 0)
    state = torch.get_rng_state()
    torch.rand(100)
    again = mixing(images, labels, 1, 2, 0, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.set_rng_state(state)
    before = torch.get_rng_state()
    mixing(images, labels, 1, 2, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    for other in ((1, 3, 0, 0), (2, 2, 0, 0), (1, 2, 1, 0), (1, 2, 0, 1)):
        assert not torch.equal(mixing(images, labels, *other)[1], first[1])


def test_probability_is_the_share_of_mixed_batches(batch):
    images, labels = batch
    mixing = mixing_by("cutmix", num_classes=5, probability=0.5)
    outcomes = [mixing(images, labels, 0, step)[1] for step in range(400)]
    assert abs(np.mean([labels.ndim == 2 for labels in outcomes]) - 0.5) < 0.08
    left_alone = mixing_by("mixup", num_classes=5, probability=0.0)(images, labels, 0)
    assert left_alone[0] is images and left_alone[1] is labels


def test_lam_is_beta_distributed():
    images, labels = torch.zeros(2, 3, 1, 1), torch.tensor([0, 1])
    mixing = mixing_by("mixup", num_classes=2, alpha=0.2)
    lams = np.array([mixing(images, labels, 0, step)[1][0, 0].item() for step in range(1500)])
    assert abs(lams.mean() - 0.5) < 0.04 and abs(lams.var() - 1 / (4 * 1.4)) < 0.02


def test_the_loss_of_soft_labels_is_the_mixed_loss(batch):
    """Cross entropy is linear in the label: lam * CE(a) + (1 - lam) * CE(b), as in the CutMix code."""
    images, _ = batch
    _, soft = mixing_by("mixup", num_classes=8)(images, torch.arange(8), 0)
    lam, partner = soft[0, 0], soft.clone().fill_diagonal_(0).argmax(1)
    logits = torch.randn(8, 8)
    expected = lam * F.cross_entropy(logits, torch.arange(8)) + (1 - lam) * F.cross_entropy(logits, partner)
    torch.testing.assert_close(F.cross_entropy(logits, soft), expected)


class TestMixupTerm:
    def test_it_is_the_formula(self):
        x, y = torch.rand(6, 3, 4, 4), torch.arange(6)
        out = mix_batch(x, y, alpha=1.0, seed=1, step=2)
        lam, partner = out["mix_ratio"], out["mixed_classes"]
        torch.testing.assert_close(out["mixed_pixel_values"], lam * x + (1 - lam) * x[partner])
        assert sorted(partner.tolist()) == list(range(6)) and 0 <= lam <= 1

    def test_draws_depend_on_the_place_in_the_run_alone(self):
        x, y = torch.rand(6, 3, 4, 4), torch.arange(6)
        first = mix_batch(x, y, 1.0, seed=1, step=2)
        torch.rand(100)
        again = mix_batch(x, y, 1.0, seed=1, step=2)
        assert torch.equal(first["mixed_pixel_values"], again["mixed_pixel_values"])
        for other in ({"step": 3}, {"seed": 2}, {"micro_step": 1}):
            assert mix_batch(x, y, 1.0, **({"seed": 1, "step": 2} | other))["mix_ratio"] != first["mix_ratio"]

    def test_processes_share_lam_but_not_partners(self):
        x, y = torch.rand(64, 3, 1, 1), torch.arange(64)
        a, b = (mix_batch(x, y, 1.0, seed=0, step=0, process=p) for p in (0, 1))
        assert a["mix_ratio"] == b["mix_ratio"] and not torch.equal(a["mixed_classes"], b["mixed_classes"])

    def test_lam_is_beta_distributed(self):
        x, y = torch.zeros(1, 3, 1, 1), torch.zeros(1, dtype=torch.int64)
        lams = np.array([mix_batch(x, y, 0.2, seed=0, step=s)["mix_ratio"].item() for s in range(2000)])
        assert abs(lams.mean() - 0.5) < 0.04 and abs(lams.var() - 1 / (4 * 1.4)) < 0.02
