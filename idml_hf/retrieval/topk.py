"""Exact top-k search, a block of queries at a time, in memory that does not grow with the number of pairs.

The order is that of the scores in double precision, rounded to 2**-40; equal scores are ordered by the smaller index.
It therefore depends neither on the block size nor on the device, the BLAS or a TF32 setting. What makes it cheap: a
float32 matrix product proposes slightly more than k candidates, and only candidates closer to each other than
that product's rounding error are scored again in double precision. A query with too many such neighbours (duplicates,
collapsed embeddings) is scored in double precision against the whole gallery.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

METRICS = ("cosine", "euclidean", "introspective")

_SLACK = 8  # candidates beyond k that the float32 product proposes
_NEAR = 256  # near-ties of one query that are still cheaper to score one by one
_MASKED = torch.iinfo(torch.int64).min


def top_k(
    queries: Any,
    gallery: Any = None,
    k: int = 10,
    *,
    metric: str = "cosine",
    uncertainty: Any = None,
    gallery_uncertainty: Any = None,
    tau: float = 5.0,
    exclude: tuple[Any, Any] | None = None,
    device: str | torch.device | None = None,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` nearest gallery items of each query, exactly.

    Args:
        queries: `(Q, d)` array or tensor of finite numbers.
        gallery: `(G, d)`; `None` searches the queries among themselves, each without itself (by index, so that
            duplicates of a query are found).
        k: Neighbours a query.
        metric: `"cosine"`, `"euclidean"`, or `"introspective"` (the distance of `idml_hf.similarity` with `tau`, which
            needs `uncertainty` and, for a separate gallery, `gallery_uncertainty`).
        uncertainty: `(Q, d_u)` uncertainty embeddings of the queries.
        gallery_uncertainty: `(G, d_u)` uncertainty embeddings of the gallery.
        tau: Temperature of the introspective distance.
        exclude: Two integer arrays `(Q,)` and `(G,)`: gallery items with the query's code are ignored.
        device: Where to compute; by default where the queries are (arrays: the CPU).
        block_size: Queries a block; by default as many as 256 MB of scores hold (1 GB on a GPU).

    Returns:
        `scores` (Q, k) float64 and `index` (Q, k) int64 on the CPU, best first. A score is the cosine similarity or the
        negative distance. Where fewer than `k` items are left, index -1 and score `-inf` follow.

    Raises:
        ValueError: on anything else than finite matrices of matching sizes, or a zero row under a cosine.

    Example:
        >>> scores, index = top_k([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], k=2)
        >>> index.tolist(), scores.tolist()
        ([[1, 2], [0, 2], [0, 1]], [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    """
    search = Search(
        queries,
        gallery,
        metric=metric,
        uncertainty=uncertainty,
        gallery_uncertainty=gallery_uncertainty,
        tau=tau,
        exclude=exclude,
        device=device,
        block_size=block_size,
    )
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    results = [tuple(part.cpu() for part in block.top_k(k)) for block in search]
    scores, index = (torch.cat(parts) for parts in zip(*results, strict=True))
    return scores, index


class Runs:
    """Gallery positions by integer code, for looking up all positions that share a query's code.

    Example:
        >>> rows, columns = Runs(torch.tensor([7, 5, 7])).pairs(torch.tensor([5, 7]))
        >>> rows.tolist(), columns.tolist()
        ([0, 1, 1], [1, 0, 2])
    """

    def __init__(self, codes: Tensor) -> None:
        self.sorted, self.order = codes.sort(stable=True)

    def count(self, codes: Tensor) -> Tensor:
        """Number of positions with each of `codes`."""
        return torch.searchsorted(self.sorted, codes, right=True) - torch.searchsorted(self.sorted, codes)

    def pairs(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """All `(i, position)` with `codes[i]` at `position`, as two vectors, `i` ascending."""
        count = self.count(codes)
        rows = torch.repeat_interleave(torch.arange(len(codes), device=codes.device), count)
        offset = torch.arange(len(rows), device=codes.device) - (count.cumsum(0) - count)[rows]
        return rows, self.order[torch.searchsorted(self.sorted, codes)[rows] + offset]


class Search:
    """Queries against one gallery; iterating yields a `Block` for each run of queries. Arguments as for `top_k`.

    The score of query q and gallery item g is `a_q * b_g * <q, g> - c_g`, larger is closer and never beyond 4:
    a = 1/|q|, b = 1/|g|, c = 0 for the cosine; a = 2 s, b = s, c = (s |g|)**2 for the euclidean distance, where s is the
    power of two that brings every row to a norm of at most 1. The introspective distance scores `-D**2`.
    """

    def __init__(
        self,
        queries: Any,
        gallery: Any = None,
        *,
        metric: str = "cosine",
        uncertainty: Any = None,
        gallery_uncertainty: Any = None,
        tau: float = 5.0,
        exclude: tuple[Any, Any] | None = None,
        device: str | torch.device | None = None,
        block_size: int | None = None,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
        if block_size is not None and block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        self.metric, self.tau = metric, tau
        self.queries = as_matrix(queries, "queries", device)
        self.device = self.queries.device
        self.gallery = self.queries if gallery is None else as_matrix(gallery, "gallery", self.device)
        if self.queries.shape[1] != self.gallery.shape[1]:
            raise ValueError(f"queries have {self.queries.shape[1]} dimensions, the gallery {self.gallery.shape[1]}")
        if gallery is None and len(self.gallery) < 2:
            raise ValueError("a search of items among themselves needs at least two of them")
        if exclude is None and gallery is None:
            exclude = (torch.arange(len(self.queries)),) * 2
        self.exclude = None if exclude is None else self._codes(*exclude)
        budget = 2**28 if self.device.type == "cuda" else 2**26
        self.block_size = block_size or max(1, budget // len(self.gallery))
        self._index_bits = max(1, (len(self.gallery) - 1).bit_length())
        self._score_bits = min(40, 60 - self._index_bits)
        self._gallery64: Tensor | None = None
        if metric == "introspective":
            self._init_introspective(uncertainty, gallery_uncertainty, gallery is None)
        else:
            self._init_product()

    def _init_product(self) -> None:
        query_square = _squares(self.queries)
        gallery_square = query_square if self.gallery is self.queries else _squares(self.gallery)
        query_norm, gallery_norm = query_square.sqrt(), gallery_square.sqrt()
        self.c: Tensor | None = None
        if self.metric == "cosine":
            _refuse_zero_rows(query_norm, "queries")
            _refuse_zero_rows(gallery_norm, "gallery")
            self.a, self.b = 1 / query_norm, 1 / gallery_norm
        else:
            largest = max(query_norm.max().item(), gallery_norm.max().item())
            scale = 2.0 ** -math.ceil(math.log2(largest)) if largest > 0 else 1.0
            self.a, self.b = torch.full_like(query_norm, 2 * scale), torch.full_like(gallery_norm, scale)
            self.c = gallery_square * scale**2
            self.query_square, self.scale = query_square * scale**2, scale
        # Twice the error of a float32 score: sqrt(d) growth as in Higham and Mary, "A new approach to probabilistic
        # rounding error analysis" (2019), with a factor of 4 to spare.
        bound = self.a * query_norm * (self.b * gallery_norm).max() + (0.0 if self.c is None else self.c.max())
        self.tolerance = (2 * 2.0**-24 * (4 * math.sqrt(self.queries.shape[1]) + 8) * bound).float()
        self._queries32 = _scaled(self.queries, self.a)
        same = self.gallery is self.queries and self.metric == "cosine"
        self._gallery32 = self._queries32 if same else _scaled(self.gallery, self.b)

    def _init_introspective(self, uncertainty: Any, gallery_uncertainty: Any, same: bool) -> None:
        if uncertainty is None or (gallery_uncertainty is None and not same):
            raise ValueError("the introspective metric needs the uncertainty embeddings of queries and gallery")
        self.uncertainty = as_matrix(uncertainty, "uncertainty", self.device).double()
        self.gallery_uncertainty = (
            self.uncertainty if same else as_matrix(gallery_uncertainty, "gallery_uncertainty", self.device).double()
        )
        for name, embeds, items in (
            ("uncertainty", self.uncertainty, self.queries),
            ("gallery_uncertainty", self.gallery_uncertainty, self.gallery),
        ):
            if len(embeds) != len(items):
                raise ValueError(f"{name} has {len(embeds)} rows for {len(items)} items")
        for name, items in (("queries", self.queries), ("gallery", self.gallery)):
            _refuse_zero_rows(_squares(items), name)
        self.queries = torch.nn.functional.normalize(self.queries.double())
        self.gallery = self.queries if same else torch.nn.functional.normalize(self.gallery.double())

    def _codes(self, query_codes: Any, gallery_codes: Any) -> tuple[Tensor, Runs]:
        codes = [torch.as_tensor(code, device=self.device) for code in (query_codes, gallery_codes)]
        for code, items in zip(codes, (self.queries, self.gallery), strict=True):
            if code.shape != (len(items),) or code.is_floating_point():
                raise ValueError(f"exclude needs one integer an item: {len(items)} items, got {tuple(code.shape)}")
        return codes[0], Runs(codes[1])

    def __iter__(self) -> Iterator[Block]:
        buffer: Tensor | None = None
        for start in range(0, len(self.queries), self.block_size):
            stop = min(start + self.block_size, len(self.queries))
            if self.metric == "introspective":
                yield Block(self, start, stop, None)
                continue
            if buffer is None:
                buffer = torch.empty(stop - start, len(self.gallery), device=self.device)
            scores = buffer[: stop - start]
            with _full_precision(self.device):
                torch.mm(self._queries32[start:stop], self._gallery32.T, out=scores)
            if self.c is not None:
                scores -= self.c.float()
            rows, columns = self.excluded(torch.arange(start, stop, device=self.device))
            scores[rows, columns] = -torch.inf
            yield Block(self, start, stop, scores)

    def excluded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs `(i, column)`: gallery items that query `rows[i]` must not see."""
        if self.exclude is None:
            return rows[:0], rows[:0]
        return self.exclude[1].pairs(self.exclude[0][rows])

    def exact_pairs(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores in float64 of the pairs `(rows[i], columns[i])`."""
        scores = torch.empty(len(rows), dtype=torch.float64, device=self.device)
        step = max(1, 2**22 // self.queries.shape[1])
        for at in range(0, len(rows), step):
            r, c = rows[at : at + step], columns[at : at + step]
            dot = (self.queries[r].double() * self.gallery[c].double()).sum(1)
            scores[at : at + step] = dot * self.a[r] * self.b[c] - (0.0 if self.c is None else self.c[c])
        return scores

    def exact_keys(self, rows: Tensor) -> Tensor:
        """Keys (see `pack`) of the queries `rows` against the whole gallery."""
        if self._gallery64 is None:
            self._gallery64 = self.gallery.double()
        queries = self.queries[rows].double()
        if self.metric == "introspective":
            from idml_hf.similarity import introspective_distance

            uncertainty = self.uncertainty[rows]
            scores = introspective_distance(
                queries, uncertainty, self._gallery64, self.gallery_uncertainty, tau=self.tau
            )
            scores = -(scores**2)
        else:
            scores = queries @ self._gallery64.T
            scores *= self.a[rows, None]
            scores *= self.b
            if self.c is not None:
                scores -= self.c
        keys = self.pack(scores, torch.arange(len(self.gallery), device=self.device))
        excluded, columns = self.excluded(rows)
        keys[excluded, columns] = _MASKED
        return keys

    def exact_chunks(self, rows: Tensor) -> Iterator[Tensor]:
        """`rows` in parts whose keys fit in memory."""
        return iter(rows.split(max(1, 2**22 // len(self.gallery))))

    def pack(self, scores: Tensor, index: Tensor) -> Tensor:
        """One int64 key for each (score, index): the larger key is the larger rounded score, then the smaller index."""
        last = 2**self._index_bits - 1
        rounded = (scores * 2.0**self._score_bits).round_().clamp_(min=-(2.0**61)).long()
        keys = rounded * (last + 1) + (last - index)
        return keys.masked_fill_(scores == -torch.inf, _MASKED)

    def unpack(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and index of `keys`; -inf and -1 for a masked key."""
        last = 2**self._index_bits - 1
        masked = keys == _MASKED
        scores = (keys >> self._index_bits).double() * 2.0**-self._score_bits
        return scores.masked_fill(masked, -torch.inf), (last - (keys & last)).masked_fill(masked, -1)

    def public(self, scores: Tensor, rows: slice) -> Tensor:
        """Inner scores as what a user reads: cosine similarity or negative distance."""
        if self.metric == "cosine":
            return scores.clamp(max=1.0)
        square = -scores
        if self.metric == "euclidean":
            square = (square + self.query_square[rows, None]) / self.scale**2
        return -square.clamp(min=0.0).sqrt()


class Block:
    """The queries `start` to `stop` of a `Search` with their float32 scores against the whole gallery (or none)."""

    def __init__(self, search: Search, start: int, stop: int, scores: Tensor | None) -> None:
        self.search, self.start, self.stop, self.scores = search, start, stop, scores

    def __len__(self) -> int:
        return self.stop - self.start

    def top_k(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores and index `(B, k)` of the nearest gallery items, padded with -inf and -1."""
        search, size = self.search, len(self.search.gallery)
        found = min(k, size)
        keys = torch.full((len(self), k), _MASKED, device=search.device)
        if self.scores is None:
            crowded = torch.arange(len(self), device=search.device)
        else:
            width = min(k + _SLACK, size)
            scores, index = self.scores.topk(width)
            tolerance = search.tolerance[self.start : self.stop]
            close = torch.zeros_like(scores, dtype=torch.bool)
            close[:, 1:] = scores[:, :-1] - scores[:, 1:] <= tolerance[:, None]
            close[:, :-1] |= close[:, 1:].clone()
            exact = scores.double()
            rows, slots = close.nonzero(as_tuple=True)
            exact[rows, slots] = search.exact_pairs(self.start + rows, index[rows, slots])
            keys[:, :found] = search.pack(exact, index).topk(found).values
            boundary = scores[:, found - 1] - scores[:, -1] <= tolerance
            crowded = boundary.nonzero()[:, 0] if width < size else rows[:0]
        for rows in search.exact_chunks(crowded):
            keys[rows, :found] = search.exact_keys(self.start + rows).topk(found).values
        scores, index = search.unpack(keys)
        return search.public(scores, slice(self.start, self.stop)), index

    def best_rank(self, rows: Tensor, targets: Runs, codes: Tensor) -> Tensor:
        """Rank, from 1, of the nearest target of each query.

        Args:
            rows: `(n,)` positions of the queries in this block.
            targets: Gallery positions by code.
            codes: `(n,)` code of each query's targets. Each query must have a target that is not excluded.
        """
        if self.scores is None:
            return self._best_rank_exact(rows, targets, codes)
        parts = []
        step = max(1, 2**23 // len(self.search.gallery))
        for at in range(0, len(rows), step):
            parts.append(self._best_rank_near(rows[at : at + step], targets, codes[at : at + step]))
        return torch.cat(parts) if parts else rows

    def _best_rank_near(self, rows: Tensor, targets: Runs, codes: Tensor) -> Tensor:
        assert self.scores is not None
        search = self.search
        scores = self.scores[rows]
        query, column = targets.pairs(codes)
        seen = scores[query, column] > -torch.inf
        query, column = query[seen], column[seen]
        keys = search.pack(search.exact_pairs(self.start + rows[query], column), column)
        best = torch.full_like(rows, _MASKED).scatter_reduce_(0, query, keys, "amax")
        centre = search.unpack(best)[0].float()
        tolerance = search.tolerance[self.start + rows]
        above = scores > (centre + tolerance)[:, None]
        near = (scores >= (centre - tolerance)[:, None]).logical_xor_(above)
        rank = 1 + _count(above)
        crowded = _count(near) > _NEAR
        near[crowded] = False
        query, column = near.nonzero(as_tuple=True)
        keys = search.pack(search.exact_pairs(self.start + rows[query], column), column)
        rank.index_add_(0, query, (keys > best[query]).long())
        rank[crowded] = self._best_rank_exact(rows[crowded], targets, codes[crowded])
        return rank

    def _best_rank_exact(self, rows: Tensor, targets: Runs, codes: Tensor) -> Tensor:
        parts = []
        for part in self.search.exact_chunks(torch.arange(len(rows), device=rows.device)):
            keys = self.search.exact_keys(self.start + rows[part])
            query, column = targets.pairs(codes[part])
            best = torch.full_like(part, _MASKED).scatter_reduce_(0, query, keys[query, column], "amax")
            parts.append(1 + _count(keys > best[:, None]))
        return torch.cat(parts) if parts else rows


def as_matrix(values: Any, name: str, device: str | torch.device | None = None) -> Tensor:
    """`values` as a finite, non-empty `(N, d)` tensor on `device`; integers become float64.

    Raises:
        ValueError: naming the array and the first row at fault.
    """
    matrix = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a non-empty matrix (items, dimensions), got shape {tuple(matrix.shape)}")
    device = torch.device(device) if device is not None else matrix.device
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    matrix = matrix.to(device)
    if not matrix.is_floating_point():
        matrix = matrix.double()
    bad = (~torch.isfinite(matrix)).any(1)
    if bad.any():
        raise ValueError(f"{name} has NaN or infinite values, first in row {int(bad.nonzero()[0, 0])}")
    return matrix


def _squares(matrix: Tensor) -> Tensor:
    """Squared row norms in float64, in parts so that no float64 copy of the matrix is made."""
    squares = torch.cat([part.double().square().sum(1) for part in matrix.split(2**14)])
    if not torch.isfinite(squares).all():
        raise ValueError("embeddings are too large: a squared norm overflows double precision")
    return squares


def _scaled(matrix: Tensor, factor: Tensor) -> Tensor:
    """Rows times `factor` as float32; double precision in parts keeps huge and tiny rows from overflowing."""
    result = torch.empty(matrix.shape, dtype=torch.float32, device=matrix.device)
    for at in range(0, len(matrix), 2**14):
        part = slice(at, at + 2**14)
        result[part] = matrix[part].double() * factor[part, None]
    return result


def _refuse_zero_rows(norms: Tensor, name: str) -> None:
    zero = (norms == 0).nonzero()
    if len(zero):
        raise ValueError(f"{name} has no direction in row {int(zero[0, 0])} (all zeros): no cosine with it exists")


def _count(mask: Tensor) -> Tensor:
    """Number of true values a row; NumPy counts booleans an order of magnitude faster than torch does on a CPU."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.asarray(np.count_nonzero(mask.numpy(), axis=1)))
    return mask.sum(1)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keeps TF32, bfloat16 and autocast, which a training run may have set, out of the scores."""
    matmuls: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [matmul.fp32_precision for matmul in matmuls]
    for matmul in matmuls:
        matmul.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision
