"""How a query and a gallery item are compared: scores of which the larger is the closer, never beyond 4 in size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .arrays import as_numbers, as_positive, as_tensor

METRICS = ("cosine", "euclidean", "introspective")

_SMALLEST = 2.0**-1000  # a smaller square has lost digits
_PART = 2**14  # rows turned to float64 at a time, so that no float64 copy of a matrix is made


class ProductScores:
    """Cosine or euclidean distance, as `<q, g> / (a_q * b_g) - c_g`.

    a = |q|, b = |g|, c = 0 for the cosine, which is the same from q to g as from g to q to the last bit.
    a = 1 / (2 s), b = 1 / s, c = (s |g|)**2 for the euclidean distance, where s is the power of two that brings every
    row to a norm of at most 1: integers keep exact scores, hence exact ties.

    Attributes:
        tolerance: `(Q,)` two scores of `approximate` that differ by more are in the order of the exact scores.
    """

    def __init__(self, queries: Tensor, gallery: Tensor, metric: str) -> None:
        self.queries, self.gallery, self.metric = queries, gallery, metric
        self.query_square = _squares(queries, "queries")
        gallery_square = self.query_square if gallery is queries else _squares(gallery, "gallery")
        query_norm, gallery_norm = self.query_square.sqrt(), gallery_square.sqrt()
        self.c: Tensor | None = None
        if metric == "cosine":
            _refuse_rows_without_direction(queries, self.query_square, "queries")
            _refuse_rows_without_direction(gallery, gallery_square, "gallery")
            self.a, self.b = query_norm, gallery_norm
        else:
            largest = max(query_norm.max().item(), gallery_norm.max().item())
            self.scale = 2.0 ** -math.ceil(math.log2(largest)) if largest > 0 else 1.0
            self.a = torch.full_like(query_norm, 0.5 / self.scale)
            self.b = torch.full_like(gallery_norm, 1 / self.scale)
            self.c = gallery_square * self.scale**2
        # Twice the rounding error of a float32 score: it grows as sqrt(d), Higham and Mary, "A new approach to
        # probabilistic rounding error analysis" (2019), here with a factor of 4 to spare.
        bound = query_norm / self.a * (gallery_norm / self.b).max() + (0.0 if self.c is None else self.c.max())
        self.tolerance = (2 * 2.0**-24 * (4 * math.sqrt(queries.shape[1]) + 8) * bound).float()
        self._queries32 = _scaled(queries, 1 / self.a)
        alike = gallery is queries and metric == "cosine"
        self._gallery32 = self._queries32 if alike else _scaled(gallery, 1 / self.b)
        self._gallery64: Tensor | None = None

    def approximate(self, start: int, stop: int, out: Tensor) -> Tensor:
        """Writes the float32 scores of the queries `start` to `stop` to `out` `(stop - start, G)`."""
        with _full_precision():  # autocast leaves products with `out` alone
            torch.mm(self._queries32[start:stop], self._gallery32.T, out=out)
        return out if self.c is None else out.sub_(self.c.float())

    def pairs(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Exact (float64) scores of the pairs `(rows[i], columns[i])`."""
        scores = torch.empty(len(rows), dtype=torch.float64, device=self.queries.device)
        step = max(1, 2**22 // self.queries.shape[1])
        for at in range(0, len(rows), step):
            r, c = rows[at : at + step], columns[at : at + step]
            dot = (self.queries[r].double() * self.gallery[c].double()).sum(1)
            scores[at : at + step] = dot / (self.a[r] * self.b[c]) - (0.0 if self.c is None else self.c[c])
        return scores

    def distances(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Distances of the pairs `(rows[i], columns[i])` in float64; duplicates are at exactly 0 of each other."""
        distances = torch.empty(len(rows), dtype=torch.float64, device=self.queries.device)
        step = max(1, 2**22 // self.queries.shape[1])
        for at in range(0, len(rows), step):
            part = slice(at, at + step)
            apart = self.queries[rows[part]].double() - self.gallery[columns[part]].double()
            distances[part] = torch.linalg.vector_norm(apart, dim=1)
        return distances

    def rows(self, rows: Tensor) -> Tensor:
        """Exact scores `(n, G)` of the queries `rows`."""
        if self._gallery64 is None:
            self._gallery64 = self.gallery.double()
        scores = self.queries[rows].double() @ self._gallery64.T
        scores /= self.a[rows, None] * self.b
        return scores if self.c is None else scores.sub_(self.c)

    def readable(self, scores: Tensor, rows: slice) -> Tensor:
        """Scores of the queries `rows` as cosine similarity or negative distance."""
        if self.metric == "cosine":
            return torch.where(scores == -torch.inf, scores, scores.clamp(-1.0, 1.0))
        square = self.query_square[rows, None] - scores / self.scale**2
        return -square.clamp(min=0.0).sqrt()


class IntrospectiveScores:
    """`-D**2` of the introspective distance D of `idml_hf.similarity`, in float64: D has no cheap error bound."""

    def __init__(
        self,
        queries: Tensor,
        gallery: Tensor,
        uncertainty: Tensor,
        gallery_uncertainty: Tensor,
        tau: float,
    ) -> None:
        for name, items, embeds in (("queries", queries, uncertainty), ("gallery", gallery, gallery_uncertainty)):
            if len(items) != len(embeds):
                raise ValueError(f"{len(embeds)} uncertainty embeddings for {len(items)} {name}")
        self.queries, self.gallery = _unit(queries, "queries"), _unit(gallery, "gallery")
        self.uncertainty, self.gallery_uncertainty = uncertainty.double(), gallery_uncertainty.double()
        self.tau = as_positive(tau, "tau")

    def rows(self, rows: Tensor) -> Tensor:
        """Exact scores `(n, G)` of the queries `rows`."""
        from idml_hf.similarity import introspective_distance

        distance = introspective_distance(
            self.queries[rows], self.uncertainty[rows], self.gallery, self.gallery_uncertainty, tau=self.tau
        )
        return distance.square_().neg_()

    def readable(self, scores: Tensor, rows: slice) -> Tensor:
        """Scores as negative introspective distance."""
        return -(-scores).clamp(min=0.0).sqrt()


def as_matrix(values: Any, name: str, device: str | torch.device | None = None) -> Tensor:
    """`values` as a finite, non-empty `(N, d)` tensor on `device`; integers become floats.

    Raises:
        ValueError: naming the array and the first row at fault.
    """
    # a tensor that can be compared as it is stays on its device
    if isinstance(values, Tensor) and values.is_floating_point() and values.layout == torch.strided:
        matrix = values.detach()
    else:
        matrix = as_tensor(as_numbers(values, name))
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a non-empty matrix (items, dimensions), got shape {tuple(matrix.shape)}")
    device = torch.device(device) if device is not None else matrix.device
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    matrix = matrix.to(device)
    bad = (~torch.isfinite(matrix)).any(1)
    if bad.any():
        raise ValueError(f"{name} has NaN or infinite values, first in row {int(bad.nonzero()[0, 0])}")
    return matrix


def _squares(matrix: Tensor, name: str) -> Tensor:
    """Squared row norms in float64."""
    squares = torch.cat([part.double().square().sum(1) for part in matrix.split(_PART)])
    if not torch.isfinite(squares).all():
        raise ValueError(f"{name} are too large: a squared norm overflows double precision")
    return squares


def _unit(matrix: Tensor, name: str) -> Tensor:
    """Rows of norm 1 in float64, whatever their size."""
    squares = _squares(matrix, name)
    _refuse_rows_without_direction(matrix, squares, name)
    return matrix.double() / squares.sqrt()[:, None]


def _scaled(matrix: Tensor, factor: Tensor) -> Tensor:
    """Rows times `factor` as float32, multiplied in float64 so that huge and tiny rows keep their direction."""
    result = torch.empty(matrix.shape, dtype=torch.float32, device=matrix.device)
    for at in range(0, len(matrix), _PART):
        part = slice(at, at + _PART)
        result[part] = matrix[part].double() * factor[part, None]
    return result


def _refuse_rows_without_direction(matrix: Tensor, squares: Tensor, name: str) -> None:
    small = (squares < _SMALLEST).nonzero()
    if not len(small):
        return
    row = int(small[0, 0])
    if (matrix[row] == 0).all():
        raise ValueError(f"{name} have no direction in row {row}: it is all zeros")
    raise ValueError(f"{name} are too small in row {row}: a squared norm underflows double precision")


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keeps TF32 and bfloat16, which a training run may have allowed, out of matrix products."""
    matmuls: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [matmul.fp32_precision for matmul in matmuls]
    for matmul in matmuls:
        matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision
