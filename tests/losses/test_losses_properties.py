"""What holds for every loss and every batch."""

from __future__ import annotations

import pytest
import torch
from batches import KINDS, batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from idml_hf.losses import LOSSES, PROXY_LOSSES, MetricLoss, build_loss

CASES = [(name, form) for name, loss in LOSSES.items() for form in loss.forms]


def value_and_gradients(
    loss: MetricLoss, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor
) -> list[Tensor]:
    """Loss and all its gradients; draws, if there are any, repeat."""
    torch.manual_seed(7)
    value = loss(semantic, uncertainty, labels)
    inputs = [
        semantic,
        *([] if uncertainty is None or loss.metric.form == "none" else [uncertainty]),
        *loss.parameters(),
    ]
    return [value, *torch.autograd.grad(value, inputs)]


def assert_finite(tensors: list[Tensor]) -> None:
    assert all(torch.isfinite(x).all() for x in tensors)


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(name: str, form: str, kind: str) -> None:
    semantic, uncertainty, labels = batch(kind, 8, 5, torch.float64)
    loss = build_loss(name, int(labels.max()) + 1, 5, form).double()

    def value(*inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        return loss(inputs[0], inputs[1], labels)

    assert torch.autograd.gradcheck(value, (semantic, uncertainty, *loss.parameters()))


@pytest.mark.parametrize(("name", "form"), [case for case in CASES if case[0] != "margin_dw"])
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), kind=st.sampled_from(KINDS))
@settings(max_examples=15, deadline=None)
def test_order_of_the_batch_changes_nothing(name: str, form: str, seed: int, size: int, kind: str) -> None:
    torch.manual_seed(seed)
    semantic, uncertainty, labels = batch(kind, size, 6, torch.float64)
    order = torch.randperm(len(labels))
    loss = build_loss(name, int(labels.max()) + 1, 6, form).double()
    value, *grads = value_and_gradients(loss, semantic, uncertainty, labels)
    same, *moved = value_and_gradients(
        loss, *(x.detach()[order].requires_grad_() for x in (semantic, uncertainty)), labels[order]
    )
    torch.testing.assert_close(same, value)
    embeddings = 1 if form == "none" else 2
    torch.testing.assert_close(moved[:embeddings], [g[order] for g in grads[:embeddings]])
    torch.testing.assert_close(moved[embeddings:], grads[embeddings:])


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), kind=st.sampled_from(KINDS), copies=st.booleans())
@settings(max_examples=15, deadline=None)
def test_no_uncertainty_is_the_plain_loss(name: str, seed: int, size: int, kind: str, copies: bool) -> None:
    torch.manual_seed(seed)
    semantic, uncertainty, labels = batch(kind, size, 6, torch.float64)
    if copies:
        semantic = semantic.detach()[torch.randint(0, len(labels), (len(labels),))].requires_grad_()
    plain = build_loss(name, int(labels.max()) + 1, 6, "none").double()
    ratio = build_loss(name, int(labels.max()) + 1, 6, "ratio").double()
    ratio.load_state_dict(plain.state_dict())
    expected = value_and_gradients(plain, semantic, uncertainty, labels)
    torch.testing.assert_close(value_and_gradients(ratio, semantic, None, labels), expected)
    zero = torch.zeros_like(uncertainty, requires_grad=True)
    value, grad, _, *others = value_and_gradients(ratio, semantic, zero, labels)
    torch.testing.assert_close([value, grad, *others], expected)


@pytest.mark.parametrize(("name", "form"), CASES)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 24),
    kind=st.sampled_from(KINDS),
    norm=st.sampled_from([0.0, 1e-8, 1e-3, 1.0, 30.0, 1e4]),
    duplicates=st.sampled_from(["none", "some", "all"]),
    huge_labels=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
@settings(max_examples=25, deadline=None)
def test_finite(
    name: str,
    form: str,
    seed: int,
    size: int,
    kind: str,
    norm: float,
    duplicates: str,
    huge_labels: bool,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(seed)
    semantic, uncertainty, labels = batch(kind, size, 6)
    classes = int(labels.max()) + 1
    if duplicates == "some":
        semantic = semantic[torch.randint(0, len(labels), (len(labels),))]
    elif duplicates == "all":
        semantic = semantic[:1].expand(len(labels), -1)
    if huge_labels and name not in PROXY_LOSSES:
        labels = 2**40 - labels
    loss = build_loss(name, classes, 6, form)
    leaves = [x.detach().to(dtype).requires_grad_() for x in (semantic, uncertainty * norm)]
    if dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            result = value_and_gradients(loss, *leaves, labels)
        assert result[0].dtype == torch.float32
    else:
        result = value_and_gradients(loss, *leaves, labels)
        assert result[0].dtype == dtype
    assert_finite(result)


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_a_number_stays_so(name: str, form: str, bad: float) -> None:
    """An overflow of mixed precision must neither raise nor pass for a loss: gradient scalers wait for it."""
    semantic, uncertainty, labels = batch("p_x_k", 16, 8)
    loss = build_loss(name, 4, 8, form)
    broken = semantic.detach().clone()
    broken[3, 2] = bad
    assert loss(broken, uncertainty, labels).isnan()
    if form != "none":
        broken = uncertainty.detach().clone()
        broken[3, 2] = torch.nan
        assert loss(semantic, broken, labels).isnan()


@pytest.mark.parametrize("name", LOSSES)
def test_image_on_its_proxy_or_its_double(name: str) -> None:
    loss = build_loss(name, 3, 6)
    semantic = loss.proxies.detach().clone() if name in PROXY_LOSSES else torch.randn(3, 6)
    semantic = normalize(semantic.repeat(2, 1)).requires_grad_()
    uncertainty = torch.rand(6, 4, requires_grad=True)
    assert_finite(value_and_gradients(loss, semantic, uncertainty, torch.arange(3).repeat(2)))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in PROXY_LOSSES])
def test_labels_that_a_float_cannot_tell_apart(name: str) -> None:
    semantic, uncertainty, labels = batch("p_x_k", 16, 6)
    loss = build_loss(name, None, 6)
    small = value_and_gradients(loss, semantic, uncertainty, labels)
    large = value_and_gradients(loss, semantic, uncertainty, labels + 2**40)
    torch.testing.assert_close(large, small, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in PROXY_LOSSES])
@pytest.mark.parametrize("form", ["none", "ratio"])
@pytest.mark.parametrize("kind", ["one_class", "no_positives", "single"])
def test_nothing_to_compare_costs_nothing_and_has_gradients(name: str, form: str, kind: str) -> None:
    semantic, uncertainty, labels = batch(kind, 6, 8)
    if name == "contrastive":
        # It needs no pairs of both kinds; its pairs cost nothing where they are near enough or far enough.
        semantic = (torch.ones(6, 8) if kind == "one_class" else torch.eye(8)[: len(labels)]).requires_grad_()
        uncertainty = torch.zeros_like(uncertainty, requires_grad=True)
    result = value_and_gradients(build_loss(name, None, 8, form), semantic, uncertainty, labels)
    for tensor in result:
        torch.testing.assert_close(tensor, torch.zeros_like(tensor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_uncertainty_has_a_gradient_only_where_the_form_uses_it(name: str) -> None:
    semantic, uncertainty, labels = batch("p_x_k", 32, 8)
    value = build_loss(name, 8, 8, "ratio")(semantic, uncertainty, labels)
    (grad,) = torch.autograd.grad(value, uncertainty)
    assert grad.norm() > 1e-5
    value = build_loss(name, 8, 8, "none")(semantic, uncertainty, labels)
    assert torch.autograd.grad(value, uncertainty, allow_unused=True) == (None,)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32_and_leaves_proxies_alone(name: str, dtype: torch.dtype) -> None:
    semantic, uncertainty, labels = batch("p_x_k", 32, 8)
    loss = build_loss(name, 8, 8)
    expected = value_and_gradients(loss, semantic, uncertainty, labels)
    with torch.autocast("cpu", dtype=dtype):
        inside = value_and_gradients(loss, semantic, uncertainty, labels)
    torch.testing.assert_close(inside, expected, rtol=0, atol=0)
    assert all(p.dtype == torch.float32 for p in loss.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_training_improves(name: str) -> None:
    """Descent on free embeddings brings classes together: catches a sign that is wrong."""
    labels = torch.arange(24) % 6
    semantic, uncertainty = torch.randn(24, 8, requires_grad=True), torch.rand(24, 4, requires_grad=True)
    softer = {"margin_dw": {"cutoff": 0.1}, "triplet_semihard": {"margin": 0.5}, "proxy_nca": {"scale": 4.0}}
    loss = build_loss(name, 6, 8, **softer.get(name, {}))
    optimizer = torch.optim.Adam([semantic, uncertainty, *loss.parameters()], lr=0.05)

    def nearest_are_right() -> float:
        distances = torch.cdist(*[normalize(semantic.detach())] * 2).fill_diagonal_(9)
        return (labels[distances.argmin(1)] == labels).double().mean().item()

    before = nearest_are_right()
    for _ in range(150):
        optimizer.zero_grad()
        loss(semantic, uncertainty, labels).backward()
        optimizer.step()
    assert before < 0.6
    assert nearest_are_right() > 0.9
