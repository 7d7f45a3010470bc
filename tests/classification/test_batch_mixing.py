"""Mixup and CutMix: the formulas, and draws that depend on the place in the run alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from idml_hf.training.classification_mixing import BatchMixing


@pytest.fixture
def batch():
    return torch.rand(8, 3, 20, 30), torch.arange(8) % 5


def test_mixup_is_its_formula(batch):
    images, _ = batch
    mixed, soft = BatchMixing("mixup", num_classes=8)(images, torch.arange(8), 3, 7)
    # each label names its image and partner: lam is its own share
    lam = soft[0, 0]
    partner = soft.clone().fill_diagonal_(0).argmax(1)
    assert 0 < lam < 1 and (partner != torch.arange(8)).all()
    torch.testing.assert_close(mixed, lam * images + (1 - lam) * images[partner])
    torch.testing.assert_close(soft, lam * torch.eye(8) + (1 - lam) * torch.eye(8)[partner])


@pytest.mark.parametrize("step", range(6))
def test_cutmix_pastes_a_box_and_shares_the_label_by_area(batch, step):
    images, _ = batch
    mixed, soft = BatchMixing("cutmix", num_classes=8)(images, torch.arange(8), 0, step)
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
    mixing = BatchMixing(mix, num_classes=5)
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
    mixing = BatchMixing("cutmix", num_classes=5, probability=0.5)
    outcomes = [mixing(images, labels, 0, step)[1] for step in range(400)]
    assert abs(np.mean([labels.ndim == 2 for labels in outcomes]) - 0.5) < 0.08
    left_alone = BatchMixing("mixup", num_classes=5, probability=0.0)(images, labels, 0)
    assert left_alone[0] is images and left_alone[1] is labels


def test_lam_is_beta_distributed():
    images, labels = torch.zeros(2, 3, 1, 1), torch.tensor([0, 1])
    mixing = BatchMixing("mixup", num_classes=2, alpha=0.2)
    lams = np.array([mixing(images, labels, 0, step)[1][0, 0].item() for step in range(1500)])
    assert abs(lams.mean() - 0.5) < 0.04 and abs(lams.var() - 1 / (4 * 1.4)) < 0.02


def test_the_loss_of_soft_labels_is_the_mixed_loss(batch):
    """Cross entropy is linear in the label: lam * CE(a) + (1 - lam) * CE(b), as in the CutMix code."""
    images, _ = batch
    _, soft = BatchMixing("mixup", num_classes=8)(images, torch.arange(8), 0)
    lam, partner = soft[0, 0], soft.clone().fill_diagonal_(0).argmax(1)
    logits = torch.randn(8, 8)
    expected = lam * F.cross_entropy(logits, torch.arange(8)) + (1 - lam) * F.cross_entropy(logits, partner)
    torch.testing.assert_close(F.cross_entropy(logits, soft), expected)
