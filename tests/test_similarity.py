"""The introspective metric: its invariants, its gradients, its precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from idml_hf.similarity import (
    CLASSIFICATION_FORMS,
    FORMS,
    introspective_distance,
    introspective_logits,
    introspective_similarity,
)

TAU = 5.0


def unit(rows: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return normalize(torch.randn(rows, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(
        dtype
    )


def draw(rows: int, d: int, seed: int = 0, norm: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (unit(rows, d, seed, torch.float64) * norm).to(dtype)


def formula(s_a: Tensor, u_a: Tensor, s_b: Tensor, u_b: Tensor, tau: float = TAU) -> Tensor:
    """The distance, written out pair by pair in float64."""
    s_a, u_a, s_b, u_b = (x.double() for x in (s_a, u_a, s_b, u_b))
    alpha = (s_a[:, None] - s_b[None]).norm(dim=2)
    beta = (u_a[:, None] + u_b[None]).norm(dim=2)
    return alpha * torch.exp(-beta / (tau * alpha))


def gradients(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs)


def is_finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in tensors)


@pytest.mark.parametrize("norm", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("tau", [0.5, 5.0])
def test_distance_is_the_formula(norm: float, tau: float) -> None:
    s_a, s_b, u_a, u_b = unit(7, 16, 0), unit(5, 16, 1), draw(7, 3, 2, norm), draw(5, 3, 3, norm)
    expected = formula(s_a, u_a, s_b, u_b, tau)
    torch.testing.assert_close(
        introspective_distance(s_a, u_a, s_b, u_b, tau).double(), expected, rtol=1e-5, atol=1e-6
    )
    similarity = introspective_similarity(s_a, u_a, s_b, u_b, "ratio", tau).double()
    torch.testing.assert_close(similarity, 1 - expected.square() / 2, rtol=1e-5, atol=1e-6)


def test_missing_uncertainty_is_zero_on_either_side() -> None:
    s_a, s_b, u_a, u_b = unit(7, 16, 0), unit(5, 16, 1), draw(7, 3, 2), draw(5, 3, 3)
    for given_a, given_b in ((u_a, None), (None, u_b), (None, None)):
        zero_a, zero_b = (torch.zeros_like(u) if g is None else g for u, g in ((u_a, given_a), (u_b, given_b)))
        torch.testing.assert_close(
            introspective_distance(s_a, given_a, s_b, given_b).double(),
            formula(s_a, zero_a, s_b, zero_b),
            rtol=1e-5,
            atol=1e-6,
        )


def test_released_form_is_the_authors_formula() -> None:
    s, p, u = unit(6, 16, 0), draw(4, 16, 1, 3.2), unit(6, 8, 2)
    cosine = s.double() @ normalize(p.double()).mT
    apart = (s[:, None].double() - p[None].double()).square().sum(2)
    expected = 1 - (1 - cosine) * torch.exp(-(u.double().square().sum(1)[:, None] + 4) / (5 * apart))
    torch.testing.assert_close(introspective_similarity(s, u, p, None, "released").double(), expected)
    with pytest.raises(ValueError, match="u_b must be None"):
        introspective_similarity(s, u, p, draw(4, 8), "released")


def test_similarity_compares_directions_and_none_ignores_uncertainty() -> None:
    s, t, u = draw(6, 16, 0, 3.0), draw(4, 16, 1, 0.2), draw(6, 8, 2)
    cosine = torch.cosine_similarity(s[:, None], t[None], dim=2)
    torch.testing.assert_close(introspective_similarity(s, u, t, None, "none"), cosine)
    torch.testing.assert_close(introspective_similarity(s, None, t, None, "ratio"), cosine, rtol=1e-5, atol=1e-6)


@given(
    d=st.integers(1, 40),
    rows=st.integers(1, 9),
    norm=st.floats(0, 1e4),
    tau=st.floats(0.1, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_invariants(d: int, rows: int, norm: float, tau: float, seed: int) -> None:
    s, u = unit(rows, d, seed), draw(rows, 4, seed + 1, norm)
    plain = introspective_distance(s, None, s, None, tau)
    distance = introspective_distance(s, u, s, u, tau)
    assert torch.equal(distance, distance.mT) or (distance - distance.mT).abs().max() < 1e-5
    assert (distance >= 0).all() and (distance <= plain + 1e-6).all() and (plain <= 2 + 1e-6).all()
    assert torch.equal(introspective_distance(s, 0 * u, s, 0 * u, tau), plain)
    cosine = introspective_similarity(s, None, s, None, "none")
    torch.testing.assert_close(introspective_similarity(s, 0 * u, s, 0 * u, "ratio", tau), cosine, rtol=0, atol=2e-6)


def test_plain_distance_is_euclidean_to_rounding() -> None:
    s, t = unit(50, 512, 0), unit(40, 512, 1)
    alpha = (s[:, None].double() - t[None].double()).norm(dim=2)
    torch.testing.assert_close(introspective_distance(s, None, t, None).double(), alpha, rtol=0, atol=5e-7)


def test_distance_rises_with_alpha_and_falls_with_beta() -> None:
    angles = torch.linspace(0, torch.pi, 200, dtype=torch.float64)
    s = torch.stack((angles.cos(), angles.sin()), 1)
    for norm in (0.0, 0.1, 1.0, 10.0):
        u = torch.full((200, 1), norm, dtype=torch.float64)
        assert (introspective_distance(s[:1], u[:1], s, u)[0].diff() >= 0).all()
    u = torch.linspace(0, 20, 100, dtype=torch.float64)[:, None]
    assert (introspective_distance(s[:1], u[:1], s[50:51].expand(100, 2), u)[0].diff() <= 0).all()


@pytest.mark.parametrize("norm", [0.0, 1e-6, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_duplicates_and_opposite_uncertainties_have_finite_gradients(norm: float, dtype: torch.dtype) -> None:
    s = unit(4, 8).repeat(2, 1).to(dtype).requires_grad_()
    u = torch.cat((draw(4, 3, 1, norm), -draw(4, 3, 1, norm))).to(dtype).requires_grad_()
    distance = introspective_distance(s, u, s, u)
    similarity = introspective_similarity(s, u, s, u)
    assert is_finite(distance, similarity)
    assert is_finite(*gradients(distance.sum() + similarity.sum(), s, u))
    opposite = torch.arange(4), torch.arange(4) + 4
    assert torch.equal(distance[opposite], torch.zeros(4, dtype=distance.dtype))
    assert torch.equal(distance.diagonal(), torch.zeros(8, dtype=distance.dtype))


def test_opposite_uncertainties_cancel() -> None:
    s, t, u = unit(5, 16, 0), unit(5, 16, 1), draw(5, 32, 2, 1e4)
    distance = introspective_distance(s, u, t, -u).diagonal()
    torch.testing.assert_close(distance, introspective_distance(s, None, t, None).diagonal())


def test_sample_on_its_proxy() -> None:
    s = unit(3, 8).requires_grad_()
    u = draw(3, 4, 1).requires_grad_()
    p = unit(3, 8).requires_grad_()
    for form in FORMS:
        similarity = introspective_similarity(s, u, p, None, form)
        torch.testing.assert_close(similarity.diagonal(), torch.ones(3))
        assert is_finite(*torch.autograd.grad(similarity.sum(), (s, p)))


def test_half_precision_is_raised_to_float32_inside_autocast() -> None:
    s, u = unit(20, 64), draw(20, 16, 1)
    expected = introspective_distance(s, u, s, u)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            inside = introspective_distance(s, u, s, u)
            assert inside.dtype == torch.float32
            assert torch.equal(inside, expected)
            assert introspective_similarity(s.to(dtype), u.to(dtype), s.to(dtype), u.to(dtype)).dtype == torch.float32
    assert introspective_distance(s.double(), u.double(), s.double(), u.double()).dtype == torch.float64


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("itself", [False, True])
def test_gradcheck(form: str, itself: bool) -> None:
    s, u = unit(5, 4, 0, torch.float64).requires_grad_(), draw(5, 3, 1, dtype=torch.float64).requires_grad_()
    t, v = unit(4, 4, 2, torch.float64).requires_grad_(), draw(4, 3, 3, dtype=torch.float64).requires_grad_()
    if itself:
        apart = ~torch.eye(5, dtype=torch.bool)
        other_u = (lambda u: None) if form == "released" else (lambda u: u)
        assert torch.autograd.gradcheck(
            lambda s, u: introspective_similarity(s, u, s, other_u(u), form)[apart], (s, u)
        )
        assert torch.autograd.gradcheck(lambda s, u: introspective_distance(s, u, s, u)[apart], (s, u))
        return
    other = None if form == "released" else v
    assert torch.autograd.gradcheck(lambda s, u, t: introspective_similarity(s, u, t, other, form), (s, u, t))
    for u_a, u_b in ((u, v), (u, None), (None, v)):
        inputs = tuple(x for x in (s, t, u_a, u_b) if x is not None)
        assert torch.autograd.gradcheck(lambda *_, a=u_a, b=u_b: introspective_distance(s, a, t, b), inputs)


def test_gradient_reaches_both_embeddings_of_both_sides() -> None:
    inputs = [unit(5, 8, 0), draw(5, 4, 1), unit(6, 8, 2), draw(6, 4, 3)]
    grads = gradients(introspective_distance(*[x.requires_grad_() for x in inputs]).sum(), *inputs)
    assert all(g.norm() > 1e-2 for g in grads)


@pytest.mark.parametrize("form", CLASSIFICATION_FORMS)
def test_logits(form: str) -> None:
    h, w, b, u = draw(6, 10, 0, 4.0), draw(5, 10, 1, 2.0), torch.randn(5), draw(6, 3, 2, 3.0)
    z = h @ w.mT + b
    apart = (h[:, None].double() - (w + b[:, None])[None].double()).norm(dim=2)
    norm = u.double().norm(dim=1, keepdim=True)
    factor = {
        "released_classification": torch.exp(-norm.square() / (5 * apart.square())),
        "ratio": torch.exp(-norm / (5 * apart)),
        "none": torch.ones_like(apart),
    }[form]
    logits = introspective_logits(z, h, u, w, b, form)
    torch.testing.assert_close(logits.double(), 1 - (1 - z.double()) * factor, rtol=1e-5, atol=1e-5)
    for no_doubt in (None, torch.zeros(6, 3)):
        assert torch.equal(introspective_logits(z, h, no_doubt, w, b, form), z)


@pytest.mark.parametrize("form", CLASSIFICATION_FORMS)
@pytest.mark.parametrize("norm", [0.0, 1.0, 1e4])
def test_logits_of_a_feature_on_its_class(form: str, norm: float) -> None:
    h = draw(4, 8, 0, 3.0).requires_grad_()
    w = h.detach().clone().requires_grad_()
    u = draw(4, 3, 1, norm).requires_grad_()
    logits = introspective_logits(h @ w.mT, h, u, w, torch.zeros(4), form)
    grads = torch.autograd.grad(logits.sum(), (h, w, u), allow_unused=True)
    assert is_finite(logits, *(g for g in grads if g is not None))
    if norm and form != "none":
        torch.testing.assert_close(logits.diagonal(), torch.ones(4))


@pytest.mark.parametrize("form", CLASSIFICATION_FORMS)
def test_logits_gradcheck_and_half_precision(form: str) -> None:
    inputs = [
        x.double().requires_grad_() for x in (draw(4, 6, 0, 2.0), draw(4, 3, 1), draw(3, 6, 2), draw(1, 3, 3)[0])
    ]

    def logits(h: Tensor, u: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return introspective_logits(h @ w.mT + b, h, u, w, b, form)

    assert torch.autograd.gradcheck(logits, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h, u, w, b = (x.detach().bfloat16() for x in inputs)
        assert logits(h, u, w, b).dtype == torch.float32


def test_no_pairwise_differences_are_held() -> None:
    rows, d = 256, 512
    s, u = unit(rows, d).requires_grad_(), draw(rows, d, 1).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        introspective_distance(s, u, s, u).sum().backward()
    largest = max(event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    assert 0 < largest <= 4 * rows * max(rows, d + 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s_a": torch.ones(3)}, "s_a must have two dimensions"),
        ({"u_a": torch.ones(2, 4)}, "got 2 for 3"),
        ({"s_b": torch.ones(3, 7)}, "differ in dimension: 5 and 7"),
        ({"u_b": torch.ones(3, 9)}, "differ in dimension: 4 and 9"),
        ({"tau": 0.0}, "tau must be > 0"),
        ({"tau": float("nan")}, "tau must be > 0"),
        ({"form": "ration"}, "form must be one of ratio, released, none; got 'ration'"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    good = {"s_a": torch.ones(3, 5), "u_a": torch.ones(3, 4), "s_b": torch.ones(3, 5), "u_b": torch.ones(3, 4)}
    with pytest.raises(ValueError, match=message):
        introspective_similarity(**(good | change))


def test_bad_logits() -> None:
    h, w, u = torch.ones(3, 5), torch.ones(2, 5), torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"logits must have shape \(3, 2\); got \(3, 3\)"):
        introspective_logits(torch.ones(3, 3), h, u, w)
    with pytest.raises(ValueError, match="got 'released'"):
        introspective_logits(torch.ones(3, 2), h, u, w, form="released")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_breaks(backend: str) -> None:
    s, u, t = unit(6, 8).requires_grad_(), draw(6, 4, 1).requires_grad_(), unit(5, 8, 2).requires_grad_()

    def all_of_it(s: Tensor, u: Tensor, t: Tensor) -> Tensor:
        return (
            introspective_distance(s, u, s, u).sum()
            + introspective_similarity(s, u, t, None).sum()
            + introspective_similarity(s, u, t, None, "released").sum()
            + introspective_logits(s @ t.mT, s, u, t).sum()
        )

    expected = all_of_it(s, u, t)
    compiled = torch.compile(all_of_it, fullgraph=True, backend=backend)(s, u, t)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(gradients(compiled, s, u, t), gradients(expected, s, u, t), rtol=1e-4, atol=1e-5)


def test_the_temperature_is_declared_once():
    import inspect

    from idml_hf import IDMLConfig, IDMLIndex, search, similarity
    from idml_hf.losses import build_loss

    functions = [
        similarity.introspective_distance,
        similarity.introspective_similarity,
        similarity.introspective_logits,
        similarity.Metric,
        build_loss,
        search.nearest,
        search.top_k,
        IDMLIndex,
        IDMLIndex.from_embeddings,
    ]
    assert {inspect.signature(function).parameters["tau"].default for function in functions} == {similarity.TAU}
    assert IDMLConfig().tau == similarity.TAU
