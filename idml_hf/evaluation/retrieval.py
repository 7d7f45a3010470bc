"""Recall@K, R-precision, MAP@R and MRR, exactly and in bounded memory.

For query i the gallery is every other item (or a separate gallery), R_i the number of gallery items of its class:

- R@K: share of queries with a gallery item of their class among the K nearest;
- RP: share of the R_i nearest that are of the class;
- MAP@R: (1 / R_i) * sum over k <= R_i of P(k) * rel(k), Musgrave et al., "A Metric Learning Reality Check" (2020);
- MAP@K: the same sum over k <= K, also divided by R_i, as pytorch-metric-learning has it;
- MRR: mean of 1 / rank of the nearest item of the class, over the whole gallery.

A query is removed from its own gallery by index, equal scores are ordered by the smaller index, and queries without an
item of their class (lone queries) are left out and counted. Averages are over queries, or over classes, each of which
then counts as much as any other (macro average).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from idml_hf.errors import one_of
from idml_hf.search.exact import Block, Runs, Search

AVERAGES = ("queries", "classes")


@dataclass(frozen=True)
class Ranking:
    """What one search says about each of N queries; every metric is arithmetic on it.

    Attributes:
        relevant: `(N,)` number R of gallery items of the query's class; 0 marks a lone query.
        first_hit: `(N,)` rank, from 1, of the nearest item of the class in the whole gallery; 0 for a lone query.
        r_precision: `(N,)` RP of each query; NaN for a lone query.
        average_precision: `(N,)` AP@R of each query; NaN for a lone query.
        margin: `(N,)` score of the nearest item minus the best score of any other class than that item's (`inf` where
            the gallery holds no other class).
        neighbours: `(N, keep)` gallery indices, nearest first; -1 where the gallery is exhausted.
        scores: `(N, keep)` cosine similarity or negative distance of the neighbours.
        labels: `(N,)` classes of the queries.
        average_precision_at: AP@K `(N,)` of each query, for each K asked for; NaN for a lone query.
    """

    relevant: np.ndarray
    first_hit: np.ndarray
    r_precision: np.ndarray
    average_precision: np.ndarray
    margin: np.ndarray
    neighbours: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    average_precision_at: dict[int, np.ndarray]

    @property
    def counted(self) -> np.ndarray:
        """`(N,)` mask of the queries that count: those with an item of their class in the gallery."""
        return self.relevant > 0

    @property
    def correct(self) -> np.ndarray:
        """`(N,)` mask of the queries whose nearest item is of their class."""
        return self.first_hit == 1

    def require_queries(self) -> None:
        """Raises ValueError if every query is lone."""
        if not self.counted.any():
            raise ValueError("no query has an item of its class in the gallery: nothing to measure")

    def metrics(self, ks: Iterable[int] = (1, 2, 4, 8), average: str = "queries") -> dict[str, float]:
        """The retrieval metrics as a flat dictionary; see `retrieval_metrics`."""
        one_of("average", average, AVERAGES)
        self.require_queries()
        counts = {"num_queries": int(np.sum(self.counted)), "num_lone_queries": int(np.sum(~self.counted))}
        values = self._per_query(ks)
        if average == "classes":
            values = {key: column for key, column in self.by_class(ks).items() if key in values}
        return {key: float(np.mean(column)) for key, column in values.items()} | counts

    def by_class(self, ks: Iterable[int] = (1, 2, 4, 8)) -> dict[str, np.ndarray]:
        """The metrics of each class, averaged over its queries; classes whose queries are all lone are left out.

        Returns:
            Columns of equal length, for `pandas.DataFrame`: `label`, in sorted order, `num_queries`, and those of
            `metrics`.

        Example:
            >>> ranking = rank([[1, 0], [4, 3], [3, 4], [0, 1], [0, 2]], ["a", "b", "a", "b", "b"])
            >>> columns = ranking.by_class(ks=(1,))
            >>> columns["label"].tolist(), columns["recall_at_1"].round(2).tolist()
            (['a', 'b'], [0.0, 0.67])
        """
        self.require_queries()
        labels, classes, size = np.unique(self.labels[self.counted], return_inverse=True, return_counts=True)
        columns = {key: np.bincount(classes, weights=column) / size for key, column in self._per_query(ks).items()}
        return {"label": labels, "num_queries": size, **columns}

    def _per_query(self, ks: Iterable[int]) -> dict[str, np.ndarray]:
        """The value of each metric for each query that counts."""
        counted, first_hit = self.counted, self.first_hit[self.counted]
        return {
            **{f"recall_at_{k}": (first_hit <= k).astype(np.float64) for k in as_ks("ks", ks)},
            "r_precision": self.r_precision[counted],
            "map_at_r": self.average_precision[counted],
            **{f"map_at_{k}": values[counted] for k, values in self.average_precision_at.items()},
            "mrr": 1 / first_hit,
        }


def retrieval_metrics(
    embeddings: Any,
    labels: Any,
    ks: Iterable[int] = (1, 2, 4, 8),
    groups: Any = None,
    *,
    map_ks: Iterable[int] = (),
    average: str = "queries",
    gallery: Any = None,
    gallery_labels: Any = None,
    gallery_groups: Any = None,
    metric: str = "cosine",
    uncertainty: Any = None,
    gallery_uncertainty: Any = None,
    tau: float = 5.0,
    device: str | torch.device | None = None,
    block_size: int | None = None,
) -> dict[str, float]:
    """Retrieval metrics of labelled embeddings.

    Args:
        embeddings: `(N, d)` NumPy array or tensor.
        labels: `(N,)` class of each item: integers of any size, or strings.
        ks: The K of R@K. A K beyond the gallery looks at the whole gallery.
        groups: `(N,)` group of each item (camera, art style, ...). Gallery items of the query's class *and* group are
            then ignored, as in person re-identification; R_i and lone queries count what is left.
        map_ks: The K of MAP@K.
        average: Over `"queries"`, or over `"classes"`: the mean over classes of the mean over a class's queries.
        gallery: `(G, d)` separate gallery; by default all other embeddings.
        gallery_labels: `(G,)`, required with `gallery`.
        gallery_groups: `(G,)`, required with `gallery` and `groups`.
        metric: Ranking by `"cosine"`, `"euclidean"` or `"introspective"` distance.
        uncertainty: `(N, d_u)` uncertainty embeddings, for the introspective distance only.
        gallery_uncertainty: `(G, d_u)`, the same for a separate gallery.
        tau: Temperature of the introspective distance.
        device: Where to search; by default where the embeddings are.
        block_size: Queries searched at a time; by default as many as 256 MB of scores hold (1 GB on a GPU).

    Returns:
        `recall_at_K` and `map_at_K` for each K asked for, `r_precision`, `map_at_r`, `mrr`, all in [0, 1] and averaged
        over `num_queries`, and `num_lone_queries`, which are not in the averages. `rank(...).by_class()` has the same
        for each class.

    Raises:
        ValueError: for values that are not finite, zero rows under a cosine, arrays of different lengths, fewer than
            two items, or when every query is lone.

    Example:
        >>> metrics = retrieval_metrics([[1, 0], [4, 3], [3, 4], [0, 1]], [5, 7, 5, 7], ks=(1, 2))
        >>> metrics["recall_at_1"], metrics["recall_at_2"], metrics["r_precision"], round(metrics["mrr"], 3)
        (0.0, 0.5, 0.0, 0.417)
        >>> retrieval_metrics([[1, 0], [4, 3], [3, 4], [0, 1]], ["a", "a", "b", "c"])["num_lone_queries"]
        2
    """
    ks = as_ks("ks", ks)
    one_of("average", average, AVERAGES)
    return rank(
        embeddings,
        labels,
        groups,
        map_ks=map_ks,
        gallery=gallery,
        gallery_labels=gallery_labels,
        gallery_groups=gallery_groups,
        metric=metric,
        uncertainty=uncertainty,
        gallery_uncertainty=gallery_uncertainty,
        tau=tau,
        device=device,
        block_size=block_size,
    ).metrics(ks, average)


def rank(
    embeddings: Any,
    labels: Any,
    groups: Any = None,
    *,
    keep: int = 1,
    map_ks: Iterable[int] = (),
    gallery: Any = None,
    gallery_labels: Any = None,
    gallery_groups: Any = None,
    **search: Any,
) -> Ranking:
    """The one search that retrieval, uncertainty and reports share; arguments as for `retrieval_metrics`.

    Args:
        keep: Neighbours to keep for each query.
        map_ks: The K for which to keep AP@K.
        **search: `metric`, `uncertainty`, `gallery_uncertainty`, `tau`, `device` and `block_size`.

    Example:
        >>> ranking = rank([[1, 0], [4, 3], [3, 4], [0, 1]], [5, 7, 5, 7], keep=2)
        >>> ranking.first_hit.tolist(), ranking.neighbours[0].tolist()
        ([2, 3, 3, 2], [1, 2])
    """
    if gallery is None and (gallery_labels is not None or gallery_groups is not None):
        raise ValueError("gallery_labels and gallery_groups need a gallery")
    if gallery is not None and gallery_labels is None:
        raise ValueError("a gallery needs gallery_labels")
    if gallery is not None and (groups is None) != (gallery_groups is None):
        raise ValueError("groups and gallery_groups are needed together")

    query_class, gallery_class = encode("labels", labels, gallery_labels, embeddings, gallery)
    exclude = None
    if groups is not None:
        query_group, gallery_group = encode("groups", groups, gallery_groups, embeddings, gallery)
        number = int(max(query_group.max(), gallery_group.max())) + 1
        exclude = (query_class * number + query_group, gallery_class * number + gallery_group)
    searching = Search(embeddings, gallery, exclude=exclude, **search)

    query_class, gallery_class = query_class.to(searching.device), gallery_class.to(searching.device)
    members = Runs(gallery_class)
    relevant = members.count(query_class)
    if searching.exclude is not None:
        # Only items of the query's own class are ever excluded.
        relevant -= searching.exclude[1].count(searching.exclude[0])
    map_ks = as_ks("map_ks", map_ks)
    depth = max(keep, *map_ks, int(torch.bincount(gallery_class).max()) + 1)
    asked = _Asked(query_class, gallery_class, members, relevant, depth, keep, map_ks)
    parts = [_score_block(block, asked) for block in searching]
    first_hit, r_precision, average_precision, margin, neighbours, scores, *rest = (
        torch.cat(part).numpy() for part in zip(*parts, strict=True)
    )
    names = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    at_k = dict(zip(map_ks, rest, strict=True))
    return Ranking(
        relevant.cpu().numpy(), first_hit, r_precision, average_precision, margin, neighbours, scores, names, at_k
    )


class _Asked(NamedTuple):
    """What to read off a block of the search. `depth` exceeds every class, so that R hits and a rival are seen."""

    query_class: Tensor
    gallery_class: Tensor
    members: Runs
    relevant: Tensor
    depth: int
    keep: int
    map_ks: list[int]


def _score_block(block: Block, asked: _Asked) -> tuple[Tensor, ...]:
    """The fields of `Ranking` from `first_hit` to `scores`, then AP@K for each K."""
    scores, index = block.top_k(asked.depth)
    part = slice(block.start, block.stop)
    query_class, relevant = asked.query_class[part], asked.relevant[part]
    found = asked.gallery_class[index]
    hits = (found == query_class[:, None]) & (index >= 0)
    position = torch.arange(1, asked.depth + 1, device=index.device)

    first_hit = hits.int().argmax(1) + 1
    deeper = ((relevant > 0) & ~hits.any(1)).nonzero()[:, 0]
    first_hit[deeper] = block.best_rank(deeper, asked.members, query_class[deeper])
    first_hit[relevant == 0] = 0

    hits_in_r = hits & (position <= relevant[:, None])
    r_precision = hits_in_r.sum(1).double() / relevant
    precision = hits.cumsum(1).double() / position
    average_precision = (precision * hits_in_r).sum(1) / relevant
    at_k = [(precision[:, :k] * hits[:, :k]).sum(1) / relevant for k in asked.map_ks]

    rival = (found != found[:, :1]) & (index >= 0)
    margin = scores[:, 0] - scores.masked_fill(~rival, -torch.inf).amax(1)
    margin[index[:, 0] < 0] = torch.nan
    kept = index[:, : asked.keep], scores[:, : asked.keep]
    return tuple(field.cpu() for field in (first_hit, r_precision, average_precision, margin, *kept, *at_k))


def encode(name: str, query: Any, gallery: Any, query_items: Any, gallery_items: Any) -> tuple[Tensor, Tensor]:
    """Labels of queries and gallery as consecutive int64 codes; without a gallery the queries' codes twice.

    Raises:
        ValueError: for another length than that of the items, NaN, or labels that cannot be compared.
    """
    arrays = [_as_vector(name, query, len(query_items))]
    if gallery is not None:
        arrays.append(_as_vector(f"gallery_{name}", gallery, len(gallery_items)))
        kinds = {"i" if array.dtype.kind in "iub" else array.dtype.kind for array in arrays}
        if len(kinds) > 1:
            raise ValueError(
                f"{name} and gallery_{name} have types that do not compare: {arrays[0].dtype}, {arrays[1].dtype}"
            )
        if {array.dtype.kind for array in arrays} == {"i", "u"}:
            # NumPy would join these as float64, where labels beyond 2**53 collide.
            arrays = [array.astype(object) for array in arrays]
    codes = torch.from_numpy(np.unique(np.concatenate(arrays), return_inverse=True)[1].reshape(-1).astype(np.int64))
    return codes[: len(arrays[0])], codes if gallery is None else codes[len(arrays[0]) :]


def _as_vector(name: str, values: Any, length: int) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (length,):
        raise ValueError(f"{name} must have one value for each of the {length} items, got shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values")
    if array.dtype.kind == "O" and any(type(value) is not type(array[0]) for value in array):
        raise ValueError(f"{name} mixes types that do not compare")
    return array


def as_ks(name: str, ks: Any) -> list[int]:
    """`ks` as a list of whole numbers of at least 1, without repeats.

    Raises:
        ValueError: naming the argument.
    """
    try:
        numbers = [operator.index(k) for k in ks]
    except TypeError:
        raise ValueError(f"{name} must be whole numbers of at least 1, got {ks!r}") from None
    if any(k < 1 for k in numbers):
        raise ValueError(f"{name} must be whole numbers of at least 1, got {ks!r}")
    return list(dict.fromkeys(numbers))
