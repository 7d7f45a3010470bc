"""Building losses by name, bad input, and what a model needs of them."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from batches import batch
from torch import Tensor

from idml_hf.losses import LOSSES, PROXY_LOSSES, MetricLoss, PairLoss, Pairs, build_loss


def test_names() -> None:
    assert list(LOSSES) == [
        "contrastive",
        "triplet_semihard",
        "margin_dw",
        "multi_similarity",
        "fast_ap",
        "proxy_nca",
        "proxy_anchor",
    ]
    assert {"proxy_nca", "proxy_anchor"} == PROXY_LOSSES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "proxyanchor"}, "unknown loss 'proxyanchor'; did you mean 'proxy_anchor'?"),
        ({"name": "xyz"}, "unknown loss 'xyz'; there are contrastive, fast_ap, margin_dw"),
        (
            {"name": "proxy_anchor", "margn": 1},
            "loss 'proxy_anchor' has no hyper-parameter 'margn'; did you mean 'margin'?",
        ),
        ({"name": "fast_ap", "qqq": 1}, "there are memory_size, num_bins, uncertainty_dim"),
        ({"name": "contrastive", "form": "relased"}, "form must be one of ratio, released, none; got 'relased'"),
        ({"name": "contrastive", "form": "released"}, "ContrastiveLoss has no form 'released', only ratio, none"),
        ({"name": "proxy_nca", "form": "released"}, "ProxyNCALoss has no form 'released'"),
        ({"name": "proxy_nca", "num_classes": None}, "ProxyNCALoss needs num_classes"),
        ({"name": "contrastive", "tau": 0}, "tau must be > 0; got 0"),
        ({"name": "contrastive", "memory_size": -1}, "memory_size must be >= 0"),
        ({"name": "margin_dw", "nonzero_loss_cutoff": 2.5}, "need 0 < cutoff < nonzero_loss_cutoff < 2"),
        ({"name": "fast_ap", "num_bins": 0}, "num_bins must be >= 1"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        build_loss(**({"num_classes": 4, "embedding_dim": 8} | arguments))
    assert message in str(error.value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("semantic", "uncertainty", "labels", "message"),
    [
        (torch.ones(4, 7), None, torch.zeros(4).long(), r"semantic must have shape \(B, 8\); got \(4, 7\)"),
        (torch.ones(0, 8), None, torch.zeros(0).long(), r"semantic must have shape \(B, 8\); got \(0, 8\)"),
        (
            torch.ones(4, 8),
            torch.ones(4),
            torch.zeros(4).long(),
            r"uncertainty must have shape \(4, d_u\); got \(4,\)",
        ),
        (torch.ones(4, 8), torch.ones(3, 2), torch.zeros(4).long(), r"uncertainty must have shape \(4, d_u\)"),
        (torch.ones(4, 8), None, torch.zeros(3).long(), r"labels must have shape \(4,\); got \(3,\)"),
        (torch.ones(4, 8), None, torch.zeros(4), "labels must be integers; got torch.float32"),
    ],
)
def test_bad_batches(name: str, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss(name, 5, 8)(semantic, uncertainty, labels)


@pytest.mark.parametrize("name", sorted(PROXY_LOSSES))
@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_labels_without_a_proxy(name: str, label: int) -> None:
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), the classes that have a proxy; got"):
        build_loss(name, 5, 8)(torch.ones(2, 8), None, torch.tensor([0, label]))


@pytest.mark.parametrize("name", LOSSES)
def test_built_without_memory_then_reset(name: str) -> None:
    """A model is built on the meta device, given memory, and asked to draw its parameters."""
    with torch.device("meta"):
        loss = build_loss(name, 6, 8, **({"memory_size": 16} if name not in PROXY_LOSSES else {}))
    assert all(t.is_meta for t in loss.state_dict().values())
    loss = loss.to_empty(device="cpu")
    for tensor in loss.state_dict().values():
        tensor.fill_(3)
    torch.manual_seed(0)
    loss.reset_parameters()
    torch.manual_seed(0)
    fresh = build_loss(name, 6, 8, **({"memory_size": 16} if name not in PROXY_LOSSES else {}))
    assert loss.state_dict().keys() == fresh.state_dict().keys()
    for key, value in fresh.state_dict().items():
        assert torch.equal(loss.state_dict()[key], value)
    assert {key for key, _ in fresh.named_buffers()} <= fresh.state_dict().keys()


def test_parameters_have_the_names_that_learning_rates_are_given_by() -> None:
    for name in PROXY_LOSSES:
        loss = build_loss(name, 100, 512)
        assert [key for key, _ in loss.named_parameters()] == ["proxies"]
        # Kaiming, fan out: the norm is sqrt(2 / C) * sqrt(d).
        assert loss.proxies.norm(dim=1).mean().item() == pytest.approx((2 / 100) ** 0.5 * 512**0.5, rel=0.02)
    assert [key for key, _ in build_loss("margin_dw", 100, 512).named_parameters()] == ["beta"]


def test_plain_form_does_not_compute_the_uncertainty() -> None:
    semantic, _, labels = batch("p_x_k", 16, 8)
    for name in LOSSES:
        poison = torch.full((16, 8), torch.nan, requires_grad=True)
        assert torch.isfinite(build_loss(name, 4, 8, "none")(semantic, poison, labels))


def test_an_eighth_loss_is_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hardest(PairLoss):
        """The farthest positive less the nearest negative."""

        measure: ClassVar = "distance"

        def matrix_loss(self, matrix: Tensor, pairs: Pairs) -> Tensor:
            farthest = torch.where(pairs.positive, matrix, 0.0).amax(1)
            nearest = torch.where(pairs.negative, matrix, 2.0).amin(1)
            return (farthest - nearest).mean()

    monkeypatch.setitem(LOSSES, "hardest", Hardest)
    loss = build_loss("hardest", None, 2, "none", memory_size=4)
    assert isinstance(loss, MetricLoss)
    s = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    value = loss(s, None, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(value, torch.tensor((0.4**0.5 - 2**0.5 + 0.4**0.5 - 0.8**0.5 - 0.8**0.5) / 3))
