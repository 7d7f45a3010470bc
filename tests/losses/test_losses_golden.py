"""Values and gradients of the losses against pytorch-metric-learning and against the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import written_out
from batches import KINDS, batch
from pytorch_metric_learning import losses as peer_losses
from pytorch_metric_learning import miners
from torch import Tensor
from torch.nn.functional import normalize

from idml_hf.losses import LOSSES, PROXY_LOSSES, MetricLoss, Pairs, build_loss
from idml_hf.losses.margin_dw import MarginLoss

Triplets = tuple[Tensor, Tensor, Tensor]


def record_triplets(loss: MarginLoss) -> list[Triplets]:
    """Have the loss note the triplets it draws, so that another can be computed on the same."""
    drawn: list[Triplets] = []
    sample = loss.sample_negatives

    def sample_and_note(matrix: Tensor, pairs: Pairs, count: int) -> tuple[Tensor, Tensor]:
        negatives, possible = sample(matrix, pairs, count)
        positives, there = pairs.positive_columns()
        there = there & possible
        anchors = torch.arange(len(matrix)).unsqueeze(1).expand_as(there)
        drawn.append((anchors[there], positives[there], negatives[there]))
        return negatives, possible

    loss.sample_negatives = sample_and_note  # type: ignore[method-assign]
    return drawn


def peer_of(ours: MetricLoss, name: str) -> tuple[Callable[[Tensor, Tensor], Tensor], list[Tensor]]:
    """The loss of pytorch-metric-learning, with our hyper-parameters and our proxies, and its parameters."""
    if name == "contrastive":
        return peer_losses.ContrastiveLoss(pos_margin=0, neg_margin=0.5), []
    if name == "fast_ap":
        return peer_losses.FastAPLoss(num_bins=10), []
    if name == "triplet_semihard":
        triplet, miner = peer_losses.TripletMarginLoss(0.1), miners.TripletMarginMiner(0.1, "semihard")
        return lambda s, y: triplet(s, y, miner(s, y)), []
    if name == "multi_similarity":
        similarity, miner = peer_losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)
        return lambda s, y: similarity(s, y, miner(s, y)), []
    if name == "margin_dw":
        assert isinstance(ours, MarginLoss)
        drawn, margin = record_triplets(ours), peer_losses.MarginLoss(learn_beta=True)
        return lambda s, y: margin(s, y, drawn[-1]), [margin.beta]
    peer = {
        "proxy_nca": lambda: peer_losses.ProxyNCALoss(ours.num_classes, ours.embedding_dim, softmax_scale=32),
        "proxy_anchor": lambda: peer_losses.ProxyAnchorLoss(ours.num_classes, ours.embedding_dim),
    }[name]()
    peer.proxies.data.copy_(ours.proxies.data)
    return peer, [peer.proxies]


def value_and_gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    grads = torch.autograd.grad(loss, inputs, allow_unused=True) if loss.requires_grad else [None] * len(inputs)
    return [loss, *(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [8, 32, 128])
@pytest.mark.parametrize("name", LOSSES)
def test_plain_form_equals_pytorch_metric_learning(name: str, size: int, kind: str) -> None:
    semantic, _, labels = batch(kind, size, 64)
    ours = build_loss(name, int(labels.max()) + 1, 64, form="none")
    peer, parameters = peer_of(ours, name)
    got = value_and_gradients(ours(semantic, None, labels), [semantic, *ours.parameters()])
    expected = value_and_gradients(peer(semantic, labels), [semantic, *parameters])
    if kind in ("random", "p_x_k") and size > 8:
        assert got[1].norm() > 1e-3
    for a, b in zip(got, expected, strict=True):
        # Relative to the largest entry: the small entries of a large gradient carry its rounding, in the peer as here.
        assert (a - b.reshape(a.shape)).abs().max() <= 1e-5 * b.abs().max().clamp_min(1)


@pytest.mark.parametrize("name", ["contrastive", "multi_similarity", "fast_ap", "proxy_nca", "proxy_anchor"])
def test_embeddings_of_any_length_are_normalised(name: str) -> None:
    semantic, _, labels = batch("random", 32, 16)
    ours = build_loss(name, 8, 16, form="none")
    peer, _ = peer_of(ours, name)
    longer = (semantic.detach() * torch.linspace(0.1, 9, 32).unsqueeze(1)).requires_grad_()
    got = value_and_gradients(ours(longer, None, labels), [longer])
    torch.testing.assert_close(got, value_and_gradients(peer(longer, labels), [longer]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["none", "ratio"])
@pytest.mark.parametrize("name", LOSSES)
def test_both_forms_equal_the_formula_written_out(name: str, form: str, kind: str) -> None:
    semantic, uncertainty, labels = batch(kind, 16, 8, torch.float64)
    ours = build_loss(name, int(labels.max()) + 1, 8, form=form).double()
    drawn = record_triplets(ours) if isinstance(ours, MarginLoss) else []
    inputs = [semantic, *([uncertainty] if form == "ratio" else []), *ours.parameters()]
    got = value_and_gradients(ours(semantic, uncertainty, labels), inputs)

    s, u = normalize(semantic), uncertainty if form == "ratio" else None
    if name in PROXY_LOSSES:
        D = written_out.distance(s, u, normalize(ours.proxies), None)
    else:
        D = written_out.distance(s, u, s, u)
    if isinstance(ours, MarginLoss):
        triplets = list(zip(*(x.tolist() for x in drawn[0]), strict=True))
        expected = written_out.margin_dw(D, triplets, ours.beta)
    elif name == "proxy_anchor":
        expected = written_out.proxy_anchor(1 - D.square() / 2, labels.tolist())
    else:
        expected = getattr(written_out, name)(D, labels.tolist())
    if kind in ("random", "p_x_k"):
        assert all(g.norm() > 1e-4 for g in got[1:])
    torch.testing.assert_close(got, value_and_gradients(expected, inputs), rtol=1e-8, atol=1e-10)


def test_released_form_equals_the_authors_loss() -> None:
    semantic, uncertainty, labels = batch("random", 24, 16, torch.float64)
    ours = build_loss("proxy_anchor", 6, 16, form="released").double()
    inputs = [semantic, uncertainty, *ours.parameters()]
    similarity = written_out.released_similarity(normalize(semantic), uncertainty, ours.proxies)
    expected = written_out.proxy_anchor(similarity, labels.tolist())
    got = value_and_gradients(ours(semantic, uncertainty, labels), inputs)
    torch.testing.assert_close(got, value_and_gradients(expected, inputs))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("contrastive", {"pos_margin": 0.3, "neg_margin": 1.2}),
        ("triplet_semihard", {"margin": 0.4}),
        ("multi_similarity", {"alpha": 3.0, "beta": 40.0, "base": 0.4, "epsilon": 0.3}),
        ("proxy_nca", {"scale": 3.0}),
        ("proxy_anchor", {"margin": 0.2, "alpha": 16.0}),
    ],
)
def test_hyper_parameters_reach_the_formula(name: str, given: dict[str, float]) -> None:
    semantic, uncertainty, labels = batch("random", 16, 8, torch.float64)
    ours = build_loss(name, 4, 8, "ratio", 2.0, **given).double()
    others = (normalize(ours.proxies), None) if name in PROXY_LOSSES else (semantic, uncertainty)
    D = written_out.distance(semantic, uncertainty, *others, tau=2.0)
    expected = getattr(written_out, name)(
        1 - D.square() / 2 if name == "proxy_anchor" else D, labels.tolist(), **given
    )
    torch.testing.assert_close(ours(semantic, uncertainty, labels), expected)
    assert not torch.allclose(build_loss(name, 4, 8, "ratio", 2.0).double()(semantic, uncertainty, labels), expected)


def test_fast_ap_bins() -> None:
    semantic, uncertainty, labels = batch("random", 16, 8, torch.float64)
    D = written_out.distance(semantic, uncertainty, semantic, uncertainty)
    ours = build_loss("fast_ap", None, 8, num_bins=4).double()
    torch.testing.assert_close(ours(semantic, uncertainty, labels), written_out.fast_ap(D, labels.tolist(), bins=4))


def test_margin_hyper_parameters() -> None:
    semantic, _, labels = batch("random", 16, 8, torch.float64)
    ours = build_loss("margin_dw", None, 8, "none", margin=0.3, beta=0.9, nu=0.5).double()
    assert isinstance(ours, MarginLoss)
    drawn = record_triplets(ours)
    got = ours(semantic, None, labels)
    triplets = list(zip(*(x.tolist() for x in drawn[0]), strict=True))
    D = written_out.distance(semantic, None, semantic, None)
    torch.testing.assert_close(got, written_out.margin_dw(D, triplets, ours.beta, margin=0.3, nu=0.5))


def test_distance_weights_are_those_of_the_peer() -> None:
    semantic, _, labels = batch("p_x_k", 32, 16, torch.float64)
    ours = build_loss("margin_dw", None, 16, "none").double()
    assert isinstance(ours, MarginLoss)
    D = torch.cdist(semantic, semantic).detach()
    weights = ours.weights(D, Pairs.of(labels, labels))

    distance = D.clamp_min(0.5)
    expected = distance ** (2 - 16) * (1 - distance.square() / 4) ** ((3 - 16) / 2)
    expected = expected * (labels[:, None] != labels[None]) * (D < 1.4)
    normalised = [w / w.sum(1, keepdim=True) for w in (weights, expected)]
    torch.testing.assert_close(*normalised)

    count = 4000
    drawn, possible = ours.sample_negatives(D, Pairs.of(labels, labels), count)
    assert possible.all()
    frequency = torch.zeros_like(D).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=D.dtype)) / count
    # Six standard deviations of a binomial share.
    assert ((frequency - normalised[1]).abs() <= 6 * (normalised[1] * (1 - normalised[1]) / count).sqrt()).all()


def test_anchors_without_a_near_negative_are_left_out() -> None:
    semantic = torch.eye(4)[[0, 0, 1, 1]] + 0.1 * torch.eye(4)
    far = build_loss("margin_dw", None, 4, "none", nonzero_loss_cutoff=0.7)
    assert far(semantic, None, torch.tensor([0, 0, 1, 1])).item() == 0.0


@pytest.mark.parametrize("form", ["none", "ratio"])
@pytest.mark.parametrize("name", LOSSES)
def test_float32_holds_at_2048(name: str, form: str) -> None:
    semantic, uncertainty, labels = batch("p_x_k", 2048, 32)
    exact = semantic.detach().double().requires_grad_()
    loss = build_loss(name, 512, 32, form)
    if isinstance(loss, MarginLoss):
        negatives = torch.randint(0, 2044, (2048, 4))
        negatives += 4 * (negatives >= labels.unsqueeze(1) * 4)
        loss.sample_negatives = lambda matrix, pairs, count: (  # type: ignore[method-assign]
            negatives,
            torch.ones(2048, 1, dtype=torch.bool),
        )
    single = loss(semantic, uncertainty, labels)
    (grad,) = torch.autograd.grad(single, semantic)
    double = loss.double()(exact, uncertainty.detach().double(), labels)
    (exact_grad,) = torch.autograd.grad(double, exact)
    assert single.item() == pytest.approx(double.item(), rel=1e-5, abs=1e-5)
    assert (grad - exact_grad).abs().max() < 1e-5


@pytest.mark.slow
def test_triplets_at_2048_equal_triplets_listed() -> None:
    semantic, _, labels = batch("p_x_k", 2048, 32)
    ours = build_loss("triplet_semihard", None, 32, "none")(semantic, None, labels)
    D = torch.cdist(semantic.detach().double(), semantic.detach().double())
    total, count = 0.0, 0
    for a in range(2048):
        positives = [p for p in range(2048) if labels[p] == labels[a] and p != a]
        gap = D[a, labels != labels[a]][None] - D[a, positives][:, None]
        semihard = (gap > 0) & (gap < 0.1)
        total, count = total + (0.1 - gap[semihard]).sum().item(), count + int(semihard.sum())
    assert count > 100_000
    assert ours.item() == pytest.approx(total / count, abs=1e-6)
