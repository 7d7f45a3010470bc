"""The cross-batch memory with each loss between images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batches import batch
from pytorch_metric_learning import losses as peer_losses
from pytorch_metric_learning import miners

from idml_hf.losses import LOSSES, PROXY_LOSSES, build_loss

PAIR_LOSSES = [name for name in LOSSES if name not in PROXY_LOSSES]


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("form", ["none", "ratio"])
def test_empty_memory_changes_nothing(name: str, form: str) -> None:
    semantic, uncertainty, labels = batch("p_x_k", 16, 8)
    torch.manual_seed(0)
    expected = build_loss(name, None, 8, form)(semantic, uncertainty, labels)
    torch.manual_seed(0)
    value = build_loss(name, None, 8, form, memory_size=40)(semantic, uncertainty, labels)
    torch.testing.assert_close(value, expected)
    grads = [torch.autograd.grad(x, semantic)[0] for x in (value, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", ["contrastive", "triplet_semihard", "multi_similarity"])
def test_value_is_that_of_the_peers_memory(name: str) -> None:
    peer, miner = {
        "contrastive": lambda: (peer_losses.ContrastiveLoss(0, 0.5), None),
        "triplet_semihard": lambda: (
            peer_losses.TripletMarginLoss(0.1),
            miners.TripletMarginMiner(0.1, type_of_triplets="semihard"),
        ),
        "multi_similarity": lambda: (peer_losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)),
    }[name]()
    theirs = peer_losses.CrossBatchMemory(peer, 8, memory_size=48, miner=miner)
    ours = build_loss(name, None, 8, "none", memory_size=32)
    for _ in range(6):
        semantic, _, labels = batch("random", 16, 8)
        # The peer keeps the batch itself in its memory, ours does not: 16 more give the same images to compare with.
        assert ours(semantic, None, labels).item() == pytest.approx(theirs(semantic, labels).item(), abs=1e-5)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_remembers_the_last_images_without_gradient(name: str) -> None:
    loss = build_loss(name, None, 8, memory_size=20)
    batches = [batch("p_x_k", 12, 8) for _ in range(3)]
    for semantic, uncertainty, labels in batches:
        loss(semantic, uncertainty, labels).backward()
    memory = loss.memory
    seen = [torch.cat([b[k].detach() for b in batches])[-20:] for k in range(3)]
    order = [memory.semantic[:, 0].argsort(), seen[0][:, 0].argsort()]
    torch.testing.assert_close(memory.semantic[order[0]], seen[0][order[1]])
    torch.testing.assert_close(memory.uncertainty[order[0]], seen[1][order[1]])
    assert torch.equal(memory.labels[order[0]], seen[2][order[1]])
    assert not any(buffer.requires_grad for buffer in loss.buffers())


def test_a_batch_larger_than_the_memory_leaves_its_end() -> None:
    loss = build_loss("contrastive", None, 8, memory_size=5)
    semantic, uncertainty, labels = batch("p_x_k", 12, 8)
    loss(semantic, uncertainty, labels)
    torch.testing.assert_close(loss.memory.semantic, semantic.detach()[-5:])


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_saved_and_loaded_it_goes_on_bit_by_bit(name: str) -> None:
    def step(loss: Any, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return loss(*batch("p_x_k", 12, 8)).detach()

    loss = build_loss(name, None, 8, memory_size=20)
    for seed in range(3):
        step(loss, seed)
    resumed = build_loss(name, None, 8, memory_size=20)
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(step(loss, 3), step(resumed, 3))
    assert not torch.equal(step(build_loss(name, None, 8, memory_size=20), 4), step(loss, 4))


def test_evaluation_and_mixed_images_leave_it_alone() -> None:
    semantic, uncertainty, labels = batch("p_x_k", 12, 8)
    loss = build_loss("contrastive", None, 8, memory_size=20)
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss(semantic, uncertainty, labels, remember=False)
    loss.eval()(semantic, uncertainty, labels)
    for key, value in loss.state_dict().items():
        assert torch.equal(value, before[key])


def test_missing_uncertainty_is_zero_in_the_memory_too() -> None:
    first, second = batch("p_x_k", 12, 8), batch("p_x_k", 12, 8)
    plain = build_loss("contrastive", None, 8, "none", memory_size=20)
    ratio = build_loss("contrastive", None, 8, "ratio", memory_size=20)
    for semantic, _, labels in (first, second):
        torch.testing.assert_close(ratio(semantic, None, labels), plain(semantic, None, labels))


def test_uncertainty_of_another_dimension_needs_to_be_told() -> None:
    semantic, _, labels = batch("p_x_k", 12, 8)
    uncertainty = torch.rand(12, 3)
    assert torch.isfinite(
        build_loss("contrastive", None, 8, memory_size=20, uncertainty_dim=3)(semantic, uncertainty, labels)
    )
    with pytest.raises(ValueError, match=r"memory .* uncertainty_dim=8 .* got 3"):
        build_loss("contrastive", None, 8, memory_size=20)(semantic, uncertainty, labels)


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["semantic", "uncertainty"])
@pytest.mark.parametrize("form", ["none", "ratio"])
def test_a_batch_that_is_not_finite_leaves_no_trace(name: str, bad: float, where: str, form: str) -> None:
    if (form, where) == ("none", "uncertainty"):
        pytest.skip("the plain form does not read it")
    loss, control = (build_loss(name, None, 8, form, memory_size=20) for _ in range(2))
    for step in range(4):
        semantic, uncertainty, labels = (x.detach().clone() for x in batch("p_x_k", 12, 8))
        if step == 2:
            {"semantic": semantic, "uncertainty": uncertainty}[where][5, 1] = bad
            loss(semantic, uncertainty, labels)
        else:
            values = []
            for each in (loss, control):
                torch.manual_seed(step)
                values.append(each(semantic, uncertainty, labels))
            assert torch.equal(*values) and values[0].isfinite()
    assert all(torch.equal(value, control.state_dict()[key]) for key, value in loss.state_dict().items())
