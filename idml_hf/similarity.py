"""The introspective similarity metric of IDML, on whole matrices.

Image *i* has a semantic embedding ``s_i`` (unit norm) and an uncertainty embedding ``u_i``. Two images are compared by

    alpha_ij = ||s_i - s_j||                             semantic distance
    beta_ij  = ||u_i + u_j||                             uncertainty of the comparison
    D_ij     = alpha_ij * exp(-beta_ij / (tau * alpha_ij))
    S_ij     = 1 - D_ij^2 / 2

Doubt shortens the distance: with ``u = 0`` the metric is the plain Euclidean distance (cosine similarity).

Everything is computed on squared norms taken from one matrix product, so memory is O(A * B) and no square root is
differentiated at 0. Half-precision input is raised to float32, also inside autocast; float64 stays float64.

References:
    Wang, Zheng et al., "Introspective Deep Metric Learning", arXiv 2205.04449 and 2309.09982 (TPAMI 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, threshold

FORMS = ("ratio", "released", "none")
"""How two embeddings are compared; see `introspective_similarity`."""

CLASSIFICATION_FORMS = ("released_classification", "ratio", "none")
"""How a feature is compared with a class; see `introspective_logits`."""

TAU = 5.0
"""Temperature of the metric unless told otherwise, as in the authors' code."""

# |x|^2 + |y|^2 - 2 x.y carries an error of a few eps; what lies below this many is noise and counts as 0.
_NOISE = 16.0
# Added to a squared distance before dividing by it: far below the smallest one that is not 0, and safe to divide by.
_TINY = 1e-24


@dataclass(frozen=True)
class Metric:
    """A form of the introspective metric with its temperature: what a loss compares embeddings by.

    The three measures take unit embeddings, are not checked, and expect autocast to be off.

    Args:
        form: ``"ratio"``, ``"released"`` or ``"none"``, see `introspective_similarity`.
        tau: temperature, > 0.

    Raises:
        ValueError: unknown form, or a temperature that is not a positive number.

    Example:
        >>> import torch
        >>> Metric("ratio", tau=5.0).distance(torch.eye(2), torch.ones(2, 1), torch.eye(2), torch.ones(2, 1))
        tensor([[0.0000, 1.0658],
                [1.0658, 0.0000]])
    """

    form: str = "ratio"
    tau: float = TAU

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}; got {self.form!r}")
        _check_tau(self.tau)

    def squared_distance(self, s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None) -> Tensor:
        """D^2, shape (A, B)."""
        return squared_distance(s_a, u_a, s_b, u_b, self.tau)

    def distance(self, s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None) -> Tensor:
        """D, shape (A, B)."""
        return square_root(squared_distance(s_a, u_a, s_b, u_b, self.tau))

    def similarity(self, s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None) -> Tensor:
        """1 - D^2 / 2, shape (A, B): the cosine without uncertainty."""
        if u_a is None and u_b is None:
            return s_a @ s_b.mT
        return torch.rsub(squared_distance(s_a, u_a, s_b, u_b, self.tau, by_direction=True), 1, alpha=0.5)


def introspective_distance(
    s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None, tau: float = TAU
) -> Tensor:
    """Introspective distance ``D = alpha * exp(-beta / (tau * alpha))`` between all rows of two sets.

    Args:
        s_a: semantic embeddings, shape (A, d), rows of unit norm.
        u_a: uncertainty embeddings, shape (A, d_u); None means 0.
        s_b: semantic embeddings, shape (B, d), rows of unit norm.
        u_b: uncertainty embeddings, shape (B, d_u); None means 0 (a proxy, a class centre).
        tau: temperature, > 0; the larger, the less the uncertainty counts.

    Returns:
        Distances, shape (A, B), in [0, 2] and never above ``alpha``. Value and gradient are finite everywhere;
        distances that float32 cannot tell from 0 (alpha < 0.0015) are exactly 0.

    Raises:
        ValueError: shapes that do not fit, or ``tau <= 0``.

    Example:
        >>> import torch
        >>> s = torch.eye(2)
        >>> introspective_distance(s, None, s, None)
        tensor([[0.0000, 1.4142],
                [1.4142, 0.0000]])
        >>> introspective_distance(s, torch.ones(2, 1), s, torch.ones(2, 1))
        tensor([[0.0000, 1.0658],
                [1.0658, 0.0000]])
    """
    _check(s_a, u_a, s_b, u_b, tau)
    with torch.autocast(s_a.device.type, enabled=False):
        return square_root(squared_distance(s_a, u_a, s_b, u_b, tau))


def introspective_similarity(
    s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None, form: str = "ratio", tau: float = TAU
) -> Tensor:
    """Introspective similarity between all rows of two sets.

    Rows are compared by direction, as the cosine does, so they need not have unit norm; a row of zeros is at right
    angles to all.

    Args:
        s_a: semantic embeddings, shape (A, d).
        u_a: uncertainty embeddings, shape (A, d_u); None means 0.
        s_b: semantic embeddings or proxies, shape (B, d).
        u_b: uncertainty embeddings, shape (B, d_u); None means 0 (a proxy, a class centre).
        form: one of

            - ``"ratio"``: ``1 - D^2 / 2``, D from `introspective_distance`;
            - ``"released"``: ``1 - (1 - cos(s, p)) * exp(-(||u||^2 + 4) / (tau * ||s - p||^2))``, the authors'
              released retrieval code: ``s_b`` are the raw proxies p, whose length matters, and ``u_b`` must be None;
            - ``"none"``: the cosine; uncertainty is ignored.
        tau: temperature, > 0 (5 in the released code).

    Returns:
        Similarities, shape (A, B), in [-1, 1]; 1 where the two cannot be told apart.

    Raises:
        ValueError: unknown form, shapes that do not fit, ``tau <= 0``, or ``u_b`` given with ``"released"``.

    Example:
        >>> import torch
        >>> s = torch.eye(2)
        >>> introspective_similarity(s, None, s, None)
        tensor([[1., 0.],
                [0., 1.]])
        >>> introspective_similarity(s, torch.ones(2, 1), s, torch.ones(2, 1))
        tensor([[1.0000, 0.4320],
                [0.4320, 1.0000]])
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    _check(s_a, u_a, s_b, u_b, tau)
    with torch.autocast(s_a.device.type, enabled=False):
        directions = direction(s_a)
        others = directions if s_b is s_a else direction(s_b)
        if form == "none":
            return directions @ others.mT
        if form == "ratio":
            d2 = squared_distance(directions, u_a, others, u_b, tau, by_direction=True)
            return torch.rsub(d2, 1, alpha=0.5)
        if u_b is not None:
            raise ValueError('form "released" compares with proxies, which have no uncertainty: u_b must be None')
        doubt = 0.0 if u_a is None else at_least_float32(u_a).square().sum(1, keepdim=True)
        apart = _SquaredNorm.apply(directions, at_least_float32(s_b), False)
        return _discount(directions @ others.mT, doubt + 4.0, tau * apart)


def introspective_logits(
    logits: Tensor,
    features: Tensor,
    uncertainty_embeds: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    form: str = "released_classification",
    tau: float = TAU,
) -> Tensor:
    """Introspective logits of a linear classifier: a class is the point ``p_c[k] = W[c, k] + b_c`` of feature space.

    Args:
        logits: plain logits ``z = W h + b``, shape (B, C).
        features: the features h, shape (B, K).
        uncertainty_embeds: uncertainty embeddings, shape (B, d_u); None means 0.
        weight: the classifier's W, shape (C, K).
        bias: the classifier's b, shape (C,); None means 0.
        form: one of

            - ``"released_classification"``: ``1 - (1 - z_c) * exp(-||u||^2 / (tau * ||h - p_c||^2))``, the authors'
              released classification code;
            - ``"ratio"``: ``1 - (1 - z_c) * exp(-||u|| / (tau * ||h - p_c||))``;
            - ``"none"``: the plain logits.
        tau: temperature, > 0 (5 in the released code).

    Returns:
        Logits, shape (B, C), float32 at least; ``z`` where ``u = 0``.

    Raises:
        ValueError: unknown form, shapes that do not fit, or ``tau <= 0``.

    Example:
        >>> import torch
        >>> h, w = torch.tensor([[1.0, 0.0]]), torch.eye(2)
        >>> introspective_logits(h @ w.T, h, torch.zeros(1, 3), w)
        tensor([[1., 0.]])
        >>> introspective_logits(h @ w.T, h, torch.ones(1, 3), w)
        tensor([[1.0000, 0.2592]])
    """
    if form not in CLASSIFICATION_FORMS:
        raise ValueError(f"form must be one of {', '.join(CLASSIFICATION_FORMS)}; got {form!r}")
    _check(features, uncertainty_embeds, weight, None, tau)
    if logits.shape != (len(features), len(weight)):
        raise ValueError(f"logits must have shape {(len(features), len(weight))}; got {tuple(logits.shape)}")
    with torch.autocast(features.device.type, enabled=False):
        logits = at_least_float32(logits)
        if form == "none" or uncertainty_embeds is None:
            return logits
        classes = at_least_float32(weight)
        if bias is not None:
            classes = classes + at_least_float32(bias).unsqueeze(1)
        apart = _SquaredNorm.apply(at_least_float32(features), classes, False)
        if form == "released_classification":
            return _discount(logits, at_least_float32(uncertainty_embeds).square().sum(1, keepdim=True), tau * apart)
        doubt = torch.linalg.vector_norm(at_least_float32(uncertainty_embeds), dim=1, keepdim=True)
        return _discount(logits, doubt, tau * square_root(apart))


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision() -> torch.dtype:
    """The default dtype, or float32 where that is less: for what is remembered or compared, never for layers."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def direction(x: Tensor) -> Tensor:
    """Rows of unit norm, in float32 at least, whatever their norm was; a row of zeros stays one, without gradient.

    Example:
        >>> direction(torch.tensor([[3.0, 4.0], [3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    x = at_least_float32(x)
    # A power of two: the squares neither overflow nor vanish, and no other row changes by a bit.
    largest = x.detach().abs().amax(1, keepdim=True)
    exponent = torch.frexp(largest).exponent.clamp(-100, 100)
    scaled = torch.ldexp(x, torch.where((largest > 0) & largest.isfinite(), -exponent, 0))
    return torch.where(largest == 0, 0.0, normalize(scaled))


def square_root(x: Tensor) -> Tensor:
    """Elementwise square root whose slope at 0 is 0."""
    return _Sqrt.apply(x)


def squared_distance(
    s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None, tau: float, by_direction: bool = False
) -> Tensor:
    """The square of `introspective_distance`, unchecked, for callers that have turned autocast off.

    A set compared with itself should be passed as the same tensors twice: it costs half the products of the backward.
    With `by_direction` a row of zeros is at right angles to all, as for the cosine: alpha^2 = 2.
    """
    if u_a is None and u_b is not None:
        return squared_distance(s_b, u_b, s_a, None, tau, by_direction).mT
    with_itself = s_b is s_a and u_b is u_a
    x, y = at_least_float32(s_a), None if with_itself else at_least_float32(s_b)
    if u_a is None:
        return _SquaredNorm.apply(x, y, by_direction)
    # D^2 = alpha^2 / exp(||v_i + v_j|| / alpha) with v = 2 u / tau: scaling u is cheaper than scaling the matrix.
    v_a = at_least_float32(u_a) * (2.0 / tau)
    v_b = None if with_itself or u_b is None else at_least_float32(u_b) * (2.0 / tau)
    return _IntrospectiveSquare.apply(x, y, v_a, v_b, by_direction)


def _discount(value: Tensor, doubt: Tensor | float, apart: Tensor) -> Tensor:
    """``1 - (1 - value) * exp(-doubt / apart)``; the value itself where there is no doubt."""
    # Written as a step from the value towards 1, so that no doubt returns the value bit by bit.
    return value - (1 - value) * torch.expm1(-doubt / apart.clamp_min(1e-12))


def _squared_norms(x: Tensor, y: Tensor | None, sign: int, by_direction: bool = False) -> Tensor:
    """``||x_i + sign * y_j||^2``, shape (A, B), from one product, 0 below its resolution; y = None stands for x."""
    y = x if y is None else y
    noise = _NOISE * torch.finfo(x.dtype).eps
    # Unit vectors have one resolution; uncertainties may have any norm, so theirs is taken off their own squares.
    keep = 1.0 if sign < 0 else 1.0 - noise
    x2, y2 = (z.square().sum(1, keepdim=True).mul_(keep) for z in (x, y))
    if by_direction:
        x2, y2 = (z2.masked_fill_(z2 == 0, 1.0) for z2 in (x2, y2))
    left = torch.cat((x, x2, torch.ones_like(x2)), 1)
    right = torch.cat((y * (2.0 * sign), torch.ones_like(y2), y2), 1)
    return threshold(left @ right.mT, noise if sign < 0 else 0.0, 0.0, inplace=True)


def _squared_norms_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, sign: int, scale: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """Gradients in x and y for the gradient ``scale * grad``; that of a set with itself is taken as symmetric."""

    # The rows' own terms make x_i = y_j cancel here, before the slope of a normalisation divides by anything.
    def one(weight: Tensor, own: Tensor, other: Tensor) -> Tensor:
        return torch.addmm(weight.sum(1, keepdim=True) * own, weight, other, alpha=sign).mul_(2.0 * scale)

    return (one(grad, x, x), None) if y is None else (one(grad, x, y), one(grad.mT, y, x))


def _both_ways(grad: Tensor) -> Tensor:
    """``grad + grad^T``: the entries ij and ji of a set with itself are one function of i and j."""
    return grad.mT.contiguous().add_(grad)


class _SquaredNorm(torch.autograd.Function):
    """``||x_i - y_j||^2``, shape (A, B); y = None stands for x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, by_direction: bool) -> Tensor:
        ctx.save_for_backward(x, y)
        return _squared_norms(x, y, -1, by_direction)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            return *_squared_norms_backward(_both_ways(grad) if y is None else grad, x, y, -1), None


class _IntrospectiveSquare(torch.autograd.Function):
    """``q / exp(r)``, shape (A, B), with ``q = ||s_i - s_j||^2`` and ``r = ||v_i + v_j|| / sqrt(q)``.

    s_b = None compares a set with itself; with s_b, v_b = None stands for 0.
    """

    @staticmethod
    def forward(
        ctx: Any, s_a: Tensor, s_b: Tensor | None, v_a: Tensor, v_b: Tensor | None, by_direction: bool
    ) -> Tensor:
        q = _squared_norms(s_a, s_b, -1, by_direction).add_(_TINY)
        if s_b is None or v_b is not None:
            r = _squared_norms(v_a, v_b, 1).div_(q).sqrt_()
        else:
            r = v_a.square().sum(1, keepdim=True).div(q).sqrt_()
        growth = r.exp()
        ctx.save_for_backward(s_a, s_b, v_a, v_b, r, growth)
        return q.sub_(_TINY).div_(growth)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        s_a, s_b, v_a, v_b, r, growth = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            grad = _both_ways(grad).div_(growth) if s_b is None else grad / growth
            grad_s = _squared_norms_backward(torch.addcmul(grad, grad, r, value=0.5), s_a, s_b, -1)
            # The slope in b = ||v_i + v_j||^2 is infinite at 0, where that of b in v_i + v_j, its factor, is 0.
            grad = grad.div_(r).masked_fill_(r == 0, 0.0)
            if s_b is None or v_b is not None:
                grad_v = _squared_norms_backward(grad, v_a, v_b, 1, scale=-0.5)
            else:
                grad_v = -grad.sum(1, keepdim=True) * v_a, None
        return grad_s[0], grad_s[1], grad_v[0], grad_v[1], None


class _Sqrt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return (grad / root).mul_(0.5).masked_fill_(root == 0, 0.0)


def _check(s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None, tau: float) -> None:
    for name, x in (("s_a", s_a), ("u_a", u_a), ("s_b", s_b), ("u_b", u_b)):
        if x is not None and x.ndim != 2:
            raise ValueError(f"{name} must have two dimensions, (rows, values); got shape {tuple(x.shape)}")
    for s, u in ((s_a, u_a), (s_b, u_b)):
        if u is not None and len(u) != len(s):
            raise ValueError(f"one uncertainty embedding per semantic embedding: got {len(u)} for {len(s)}")
    if s_a.shape[1] != s_b.shape[1]:
        raise ValueError(f"semantic embeddings differ in dimension: {s_a.shape[1]} and {s_b.shape[1]}")
    if u_a is not None and u_b is not None and u_a.shape[1] != u_b.shape[1]:
        raise ValueError(f"uncertainty embeddings differ in dimension: {u_a.shape[1]} and {u_b.shape[1]}")
    _check_tau(tau)


def _check_tau(tau: float) -> None:
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be > 0; got {tau}")
