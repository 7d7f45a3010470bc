"""Values within their range, and gradients of bounded length, for batches that are made to break a loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from idml_hf.losses import LOSSES, PROXY_LOSSES, build_loss
from idml_hf.similarity import direction, introspective_similarity

CASES = [(name, form) for name, loss in LOSSES.items() for form in loss.forms]
PAIR_LOSSES = [name for name in LOSSES if name not in PROXY_LOSSES]
CLASSES = 5
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]

# unit vectors are at most 2 apart
FARTHEST = 2.0


def largest_value(name: str, size: int) -> float:
    """What the loss with its default hyper-parameters cannot exceed, by its formula; none is below 0."""
    return {
        "contrastive": FARTHEST + 0.5,
        "triplet_semihard": 0.1,
        "margin_dw": 1.2 + 0.2,
        "multi_similarity": math.log1p(size * math.exp(2 * 1.5)) / 2 + math.log1p(size * math.exp(50 * 0.5)) / 50,
        "fast_ap": 1.0,
        "proxy_nca": 32 * FARTHEST**2 + math.log(CLASSES),
        "proxy_anchor": 2 * math.log1p(size * math.exp(32 * 1.1)),
    }[name]


def largest_slope(name: str, form: str) -> float:
    """What the length of the gradient in all embeddings together cannot exceed.

    It is the sum of the slopes in the entries of the matrix, times the slope of an entry: 1 in each of two semantic
    embeddings, 1 / tau in each of two uncertainties, and for squares and similarities twice the distance more.
    """
    entries = {
        "contrastive": 2,
        "triplet_semihard": 2,
        "margin_dw": 2,
        "multi_similarity": 2,
        # each of ten bins, in which a distance moves by 10 / 4 of its share
        "fast_ap": 10 / 4 * 2 * (1 + 10),
        "proxy_nca": 32 * 2,
        "proxy_anchor": 32 * 2,
    }[name]
    measure = {"distance": 1, "similarity": FARTHEST, "squared_distance": 2 * FARTHEST}[LOSSES[name].measure]
    return entries * measure * (2 + 2 / 5 + (2 if form == "released" else 0))


@st.composite
def adversarial(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Copies and opposites of a few directions, some a rounding error aside; uncertainties alike; labels of a kind."""
    d, size = draw(st.integers(1, 6)), draw(st.integers(1, 10))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    few = normalize(torch.randn(draw(st.integers(1, 3)), d, generator=generator))
    which = draw(st.lists(st.integers(0, len(few) - 1), min_size=size, max_size=size))
    sign = torch.tensor(draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=size, max_size=size))).unsqueeze(1)
    aside = draw(st.sampled_from([0.0, 1e-7, 1e-4, 1e-2])) * torch.randn(size, d, generator=generator)
    semantic = normalize(few[which] * sign + aside)
    norm = draw(st.sampled_from([0.0, 1e-6, 0.2, 1.0, 10.0, 1e4]))
    uncertainty = norm * torch.randn(1, 3, generator=generator) * (sign if draw(st.booleans()) else 1.0)
    kind = draw(st.sampled_from(["one", "lone", "pairs", "any"]))
    labels = {
        "one": torch.zeros(size),
        "lone": torch.arange(size) % CLASSES if size > CLASSES else torch.arange(size),
        "pairs": torch.arange(size) // 2,
        "any": torch.randint(0, CLASSES, (size,), generator=generator),
    }[kind]
    return semantic, uncertainty.expand(size, 3).clone(), labels.long()


def opposites(d: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    x = normalize(torch.randn(1, d, generator=torch.Generator().manual_seed(seed)))
    return torch.cat((x, -x)), torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(("name", "form"), CASES)
@given(batch=adversarial())
@example(batch=opposites(2, 0))
@example(batch=opposites(4, 3))
@example(batch=opposites(6, 8))
@settings(max_examples=60, deadline=None)
def test_value_in_range_and_gradient_bounded(name: str, form: str, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    semantic, uncertainty, labels = batch
    torch.manual_seed(0)
    loss = build_loss(name, CLASSES, semantic.shape[1], form)
    semantic.requires_grad_()
    uncertainty.requires_grad_()
    value = loss(semantic, uncertainty, labels)
    assert -1e-5 <= value.item() <= largest_value(name, len(labels)) * (1 + 1e-5) + 1e-6
    gradients = torch.autograd.grad(value, (semantic, uncertainty), allow_unused=True)
    length = math.sqrt(sum(g.double().square().sum().item() for g in gradients if g is not None))
    assert length <= largest_slope(name, form)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fast_ap_of_opposites_finds_all(dtype: torch.dtype) -> None:
    """All an image's batch mates are of its class, so its average precision is 1, wherever they are."""
    for seed in range(200):
        semantic, _, labels = opposites(2 + seed % 30, seed)
        semantic = semantic.to(dtype).requires_grad_()
        value = build_loss("fast_ap", None, semantic.shape[1], "none")(semantic, None, labels)
        assert abs(value.item()) < 1e-5
        (gradient,) = torch.autograd.grad(value, semantic)
        assert gradient.norm() < 1e-2


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_of_every_integer_type(name: str, dtype: torch.dtype) -> None:
    semantic, uncertainty = torch.randn(12, 8), torch.rand(12, 8)
    labels = torch.arange(12) // 3
    torch.manual_seed(0)
    loss = build_loss(name, 4, 8, **({"memory_size": 8} if name in PAIR_LOSSES else {}))
    other = build_loss(name, 4, 8, **({"memory_size": 8} if name in PAIR_LOSSES else {}))
    other.load_state_dict(loss.state_dict())
    for _ in range(2):
        values = []
        for each, given_labels in ((loss, labels), (other, labels.to(dtype))):
            torch.manual_seed(1)
            values.append(each(semantic, uncertainty, given_labels))
        assert torch.equal(*values)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float16, torch.complex64])
def test_labels_that_are_no_integers(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"labels must be integers; got {dtype}"):
        build_loss(name, 2, 8)(torch.randn(2, 8), None, torch.tensor([0, 1]).to(dtype))


@pytest.mark.parametrize("name", sorted(PROXY_LOSSES))
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_labels_without_a_proxy(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\).*got 0 to 7"):
        build_loss(name, 2, 8)(torch.randn(2, 8), None, torch.tensor([0, 7]).to(dtype))


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_label_that_marks_empty_slots(name: str) -> None:
    labels = torch.tensor([0, -(2**63)])
    assert build_loss(name, None, 8)(torch.randn(2, 8), None, labels).isfinite()
    with pytest.raises(ValueError, match=r"labels must not be -2\*\*63"):
        build_loss(name, None, 8, memory_size=4)(torch.randn(2, 8), None, labels)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("zero_rows", [(2,), (0, 1, 5), tuple(range(8))])
@pytest.mark.parametrize("with_memory", [False, True])
def test_no_uncertainty_is_zero_uncertainty_for_rows_of_zeros(
    name: str, zero_rows: tuple[int, ...], with_memory: bool
) -> None:
    if with_memory and name in PROXY_LOSSES:
        pytest.skip("no memory")
    memory = {"memory_size": 6, "uncertainty_dim": 3} if with_memory else {}
    semantic = torch.randn(8, 6, dtype=torch.float64)
    semantic[list(zero_rows)] = 0.0
    semantic.requires_grad_()
    torch.manual_seed(0)
    losses = [build_loss(name, 4, 6, form, **memory).double() for form in ("ratio", "ratio", "none")]
    zero = torch.zeros(8, 3, dtype=torch.float64)
    for other in losses[1:]:
        other.load_state_dict(losses[0].state_dict(), strict=False)
    for _ in range(2):
        found = []
        for loss, uncertainty in zip(losses, (None, zero, None), strict=True):
            torch.manual_seed(1)
            value = loss(semantic, uncertainty, torch.arange(8) // 2)
            found.append([value, *torch.autograd.grad(value, semantic)])
        torch.testing.assert_close(found[1], found[0])
        torch.testing.assert_close(found[2], found[0])
        assert not found[0][1][list(zero_rows)].any(), "a row of zeros has no direction to turn"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e13, 1e30])
def test_only_directions_count(name: str, scale: float) -> None:
    semantic, labels = torch.randn(8, 6), torch.arange(8) // 2
    torch.manual_seed(0)
    loss = build_loss(name, 4, 6)
    values = []
    for factor in (1.0, scale):
        torch.manual_seed(1)
        values.append(loss(semantic * factor, torch.rand(8, 6), labels))
    torch.testing.assert_close(*values)


class TestDirection:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_what_normalisation_gives_bit_by_bit(self, dtype: torch.dtype) -> None:
        x = torch.randn(200, 17, dtype=dtype) * 10.0 ** torch.randint(-6, 7, (200, 1))
        assert torch.equal(direction(x), normalize(x))

    def test_rows_of_zeros_are_at_right_angles_to_all(self) -> None:
        s = torch.cat((torch.zeros(2, 4), torch.eye(4)))
        for form in ("none", "ratio"):
            for u in (None, torch.zeros(6, 3)):
                assert torch.equal(introspective_similarity(s, u, s, u, form), s @ s.T)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "margin_dw", "beta": math.nan}, "beta of loss 'margin_dw' must be a finite number; got nan"),
        ({"name": "contrastive", "neg_margin": "0.5"}, "neg_margin of loss 'contrastive' must be a finite number"),
        ({"name": "fast_ap", "num_bins": 2.5}, "num_bins of loss 'fast_ap' must be an integer; got 2.5"),
        ({"name": "fast_ap", "memory_size": True}, "memory_size of loss 'fast_ap' must be an integer; got True"),
        ({"name": "proxy_nca", "scale": math.inf}, "scale of loss 'proxy_nca' must be a finite number; got inf"),
        ({"name": "contrastive", "tau": math.nan}, "tau must be > 0; got nan"),
        ({"name": "contrastive", "tau": -1.0}, "tau must be > 0; got -1.0"),
        ({"name": "contrastive", "tau": math.inf}, "tau must be > 0; got inf"),
    ],
)
def test_hyper_parameters_that_are_no_numbers(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        build_loss(**({"num_classes": 4, "embedding_dim": 8} | arguments))
    assert message in str(error.value)


def test_a_whole_number_is_a_number() -> None:
    loss = build_loss("margin_dw", None, 8, beta=1)
    value = loss(torch.randn(8, 8), torch.rand(8, 8), torch.arange(8) // 2)
    assert loss.beta.dtype == torch.float32 and value.isfinite()
    value.backward()
    assert loss.beta.grad.isfinite()
