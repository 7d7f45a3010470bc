"""Exact top-k search, a block of queries at a time, in memory that does not grow with the number of pairs.

The order is that of the scores in double precision, rounded to 2**-40 (to 2**-36 among ten million items, where score
and index share 64 bits); equal scores are ordered by the smaller index. It therefore depends neither on the block size
nor on the device, the BLAS or a TF32 setting. What makes it cheap: a float32 matrix product proposes slightly more
than k candidates, and only candidates closer to each other than that product's rounding error are scored again in
double precision. A query with too many such neighbours (duplicates, collapsed embeddings) is scored in double
precision against the whole gallery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idml_hf.errors import one_of
from idml_hf.similarity import TAU

from .arrays import as_count, as_integers
from .rescoring import BITS, SLACK
from .scores import METRICS, IntrospectiveScores, ProductScores, as_matrix

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
    tau: float = TAU,
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
            needs `uncertainty` and, for a separate gallery, `gallery_uncertainty`; computed in double precision
            throughout, hence several times slower).
        uncertainty: `(Q, d_u)` uncertainty embeddings of the queries.
        gallery_uncertainty: `(G, d_u)` uncertainty embeddings of the gallery.
        tau: Temperature of the introspective distance.
        exclude: Two integer arrays `(Q,)` and `(G,)`: gallery items with the query's code are ignored.
        device: Where to compute; by default where the queries are (arrays: the CPU).
        block_size: Queries a block; by default as many as 256 MB of scores hold (1 GB on a GPU).

    Returns:
        `scores` (Q, k) float64 and `index` (Q, k) int64 on the CPU, best first. A score is the cosine similarity or
        the negative distance. Where fewer than `k` items are left, index -1 and score `-inf` follow.

    Raises:
        ValueError: on anything else than finite matrices of matching sizes, or a zero row under a cosine.

    Example:
        >>> scores, index = top_k([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], k=2)
        >>> index.tolist(), scores.tolist()
        ([[1, 2], [0, 2], [0, 1]], [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    """
    k = as_count(k, "k")
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
    parts = []
    for block in search:
        scores, index = block.top_k(k)
        parts.append((block.exact(scores, index).cpu(), index.cpu()))
    scores, index = (torch.cat(part) for part in zip(*parts, strict=True))
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
    """Queries against one gallery; iterating yields a `Block` for each run of queries. Arguments as for `top_k`."""

    def __init__(
        self,
        queries: Any,
        gallery: Any = None,
        *,
        metric: str = "cosine",
        uncertainty: Any = None,
        gallery_uncertainty: Any = None,
        tau: float = TAU,
        exclude: tuple[Any, Any] | None = None,
        device: str | torch.device | None = None,
        block_size: int | None = None,
    ) -> None:
        one_of("metric", metric, METRICS)
        block_size = None if block_size is None else as_count(block_size, "block_size")
        items = as_matrix(queries, "queries", device)
        self.device, self.num_queries = items.device, len(items)
        others = items if gallery is None else as_matrix(gallery, "gallery", self.device)
        self.num_gallery = len(others)
        if items.shape[1] != others.shape[1]:
            raise ValueError(f"queries have {items.shape[1]} dimensions, the gallery {others.shape[1]}")
        if gallery is None and len(items) < 2:
            raise ValueError("a search of items among themselves needs at least two of them")
        if exclude is None and gallery is None:
            exclude = (np.arange(len(items)),) * 2
        self.exclude = None if exclude is None else self._codes(*exclude)
        self.scores: ProductScores | IntrospectiveScores
        if metric == "introspective":
            other_uncertainty = uncertainty if gallery is None else gallery_uncertainty
            if uncertainty is None or other_uncertainty is None:
                raise ValueError("the introspective metric needs the uncertainty embeddings of queries and gallery")
            self.scores = IntrospectiveScores(
                items,
                others,
                as_matrix(uncertainty, "uncertainty", self.device),
                as_matrix(other_uncertainty, "gallery_uncertainty", self.device),
                tau,
            )
        else:
            self.scores = ProductScores(items, others, metric)
        self.block_size = block_size or max(1, 2 ** (28 if self.device.type == "cuda" else 26) // self.num_gallery)
        self._index_bits = max(1, (self.num_gallery - 1).bit_length())
        self._score_bits = min(BITS, 60 - self._index_bits)

    def _codes(self, query_codes: Any, gallery_codes: Any) -> tuple[Tensor, Runs]:
        codes = []
        for code, length in ((query_codes, self.num_queries), (gallery_codes, self.num_gallery)):
            integers = as_integers(code, "exclude (one integer an item)")
            if integers.shape != (length,):
                raise ValueError(f"exclude needs one integer an item: {length} items, got {integers.shape}")
            codes.append(torch.from_numpy(integers).to(self.device))
        return codes[0], Runs(codes[1])

    def __iter__(self) -> Iterator[Block]:
        buffer: Tensor | None = None
        for start in range(0, self.num_queries, self.block_size):
            stop = min(start + self.block_size, self.num_queries)
            if isinstance(self.scores, IntrospectiveScores):
                yield Block(self, start, stop, None)
                continue
            if buffer is None:
                buffer = torch.empty(stop - start, self.num_gallery, device=self.device)
            scores = self.scores.approximate(start, stop, out=buffer[: stop - start])
            scores[self.excluded(torch.arange(start, stop, device=self.device))] = -torch.inf
            yield Block(self, start, stop, scores)

    def excluded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs `(i, column)`: gallery items that query `rows[i]` must not see."""
        if self.exclude is None:
            return rows[:0], rows[:0]
        return self.exclude[1].pairs(self.exclude[0][rows])

    def keys(self, rows: Tensor) -> Tensor:
        """Exact keys (see `pack`) `(n, G)` of the queries `rows`."""
        keys = self.pack(self.scores.rows(rows), torch.arange(self.num_gallery, device=self.device))
        keys[self.excluded(rows)] = _MASKED
        return keys

    def key_chunks(self, number: int) -> Iterator[Tensor]:
        """The positions 0 to `number`, in parts whose keys fit in memory."""
        return iter(torch.arange(number, device=self.device).split(max(1, 2**22 // self.num_gallery)))

    def pack(self, scores: Tensor, index: Tensor) -> Tensor:
        """(score, index) as one int64: the larger key has the larger rounded score or, if equal, the smaller index."""
        last = 2**self._index_bits - 1
        rounded = (scores * 2.0**self._score_bits).round_().clamp_(min=-(2.0**61)).long()
        keys = rounded.mul_(last + 1).add_(last - index)
        return keys.masked_fill_(scores == -torch.inf, _MASKED)

    def unpack(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and index of `keys`; -inf and -1 for a masked key."""
        last = 2**self._index_bits - 1
        masked = keys == _MASKED
        scores = (keys >> self._index_bits).double() * 2.0**-self._score_bits
        return scores.masked_fill(masked, -torch.inf), (last - (keys & last)).masked_fill(masked, -1)


class Block:
    """The queries `start` to `stop` of a `Search`, with their float32 scores against the gallery if there are any."""

    def __init__(self, search: Search, start: int, stop: int, scores: Tensor | None) -> None:
        self.search, self.start, self.stop, self.scores = search, start, stop, scores

    def top_k(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores and index `(B, k)` of the nearest gallery items, padded with -inf and -1.

        The order is exact. The scores are only as exact as it takes to know it; see `exact`.
        """
        search, found = self.search, min(k, self.search.num_gallery)
        keys = torch.full((self.stop - self.start, k), _MASKED, device=search.device)
        crowded = torch.arange(len(keys), device=search.device)
        if self.scores is not None:
            keys[:, :found], crowded = self._top_k_near(found)
        for part in search.key_chunks(len(crowded)):
            rows = crowded[part]
            keys[rows, :found] = search.keys(self.start + rows).topk(found).values
        scores, index = search.unpack(keys)
        return search.scores.readable(scores, slice(self.start, self.stop)), index

    def exact(self, scores: Tensor, index: Tensor) -> Tensor:
        """Scores `(B, k)` of `top_k` in double precision, so that queries that are equally near are equal."""
        search = self.search
        if not isinstance(search.scores, ProductScores):
            return scores
        rows, columns = (index >= 0).nonzero(as_tuple=True)
        found = index[rows, columns]
        again = torch.full_like(scores, -torch.inf)
        if search.scores.metric == "euclidean":
            again[rows, columns] = -search.scores.distances(self.start + rows, found)
            return again
        keys = search.pack(search.scores.pairs(self.start + rows, found), found)
        again[rows, columns] = search.unpack(keys)[0]
        return search.scores.readable(again, slice(self.start, self.stop))

    def _top_k_near(self, k: int) -> tuple[Tensor, Tensor]:
        """Keys `(B, k)`, and the rows where more items than were proposed may belong to the top k."""
        assert self.scores is not None and isinstance(self.search.scores, ProductScores)
        width = min(k + SLACK, self.search.num_gallery)
        proposed, index = self.scores.topk(width)
        tolerance = self.search.scores.tolerance[self.start : self.stop]
        near = torch.zeros_like(proposed, dtype=torch.bool)
        near[:, 1:] = proposed[:, :-1] - proposed[:, 1:] <= tolerance[:, None]
        near[:, :-1] |= near[:, 1:].clone()
        exact = proposed.double()
        rows, slots = near.nonzero(as_tuple=True)
        exact[rows, slots] = self.search.scores.pairs(self.start + rows, index[rows, slots])
        keys = self.search.pack(exact, index).topk(k).values
        if width == self.search.num_gallery:
            return keys, rows[:0]
        return keys, (proposed[:, k - 1] - proposed[:, -1] <= tolerance).nonzero()[:, 0]

    def best_rank(self, rows: Tensor, targets: Runs, codes: Tensor) -> Tensor:
        """Rank in the whole gallery, from 1, of the nearest target of each query.

        Args:
            rows: `(n,)` positions of the queries in this block.
            targets: Gallery positions by code.
            codes: `(n,)` code of each query's targets, at least one of which must not be excluded.
        """
        rank = torch.empty_like(rows)
        crowded = torch.ones_like(rows, dtype=torch.bool)
        if self.scores is not None:
            for part in torch.arange(len(rows), device=rows.device).split(max(1, 2**23 // self.search.num_gallery)):
                rank[part], crowded[part] = self._best_rank_near(rows[part], targets, codes[part])
        left = crowded.nonzero()[:, 0]
        for part in self.search.key_chunks(len(left)):
            keys = self.search.keys(self.start + rows[left[part]])
            query, column = targets.pairs(codes[left[part]])
            best = torch.full_like(part, _MASKED).scatter_reduce_(0, query, keys[query, column], "amax")
            rank[left[part]] = 1 + _count(keys > best[:, None])
        return rank

    def _best_rank_near(self, rows: Tensor, targets: Runs, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Ranks, and a mask of the queries with so many near-ties of their best target that the rank is not final."""
        assert self.scores is not None and isinstance(self.search.scores, ProductScores)
        search, exact = self.search, self.search.scores
        scores, tolerance = self.scores[rows], exact.tolerance[self.start + rows]
        query, column = targets.pairs(codes)
        seen = scores[query, column] > -torch.inf
        query, column = query[seen], column[seen]
        keys = search.pack(exact.pairs(self.start + rows[query], column), column)
        best = torch.full_like(rows, _MASKED).scatter_reduce_(0, query, keys, "amax")
        centre = search.unpack(best)[0].float()
        above = scores > (centre + tolerance)[:, None]
        near = (scores >= (centre - tolerance)[:, None]).logical_xor_(above)
        crowded = _count(near) > _NEAR
        near[crowded] = False
        query, column = near.nonzero(as_tuple=True)
        keys = search.pack(exact.pairs(self.start + rows[query], column), column)
        rank = 1 + _count(above)
        return rank.index_add_(0, query, (keys > best[query]).long()), crowded


def _count(mask: Tensor) -> Tensor:
    """Number of true values a row; on a CPU, NumPy counts booleans an order of magnitude faster than torch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.asarray(np.count_nonzero(mask.numpy(), axis=1)))
    return mask.sum(1)
