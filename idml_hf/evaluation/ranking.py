"""One exact search, and what it says of each query: the ranking that every metric is arithmetic on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from idml_hf.errors import one_of
from idml_hf.search.arrays import as_count, as_positive
from idml_hf.search.exact import Block, Runs, Search
from idml_hf.search.scores import METRICS
from idml_hf.similarity import TAU

from .arguments import as_codes, as_device, as_directions, as_ks, as_labels, as_rows

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

    search = _checked(search)
    items = as_rows("embeddings", embeddings)
    others = None if gallery is None else as_rows("gallery", gallery)
    if others is not None and items.shape[1] != others.shape[1]:
        raise ValueError(f"embeddings have {items.shape[1]} dimensions, the gallery {others.shape[1]}")
    if others is None and len(items) < 2:
        raise ValueError("embeddings must be at least two items, to search among themselves")
    if search["metric"] != "euclidean":
        items = as_directions("embeddings", items)
        others = None if others is None else as_directions("gallery", others)
    for name, count in (
        ("uncertainty", len(items)),
        ("gallery_uncertainty", len(items if others is None else others)),
    ):
        if search.get(name) is not None:
            search[name] = as_rows(name, search[name])
            if len(search[name]) != count:
                raise ValueError(f"{name} must have one row for each of the {count} items, got {len(search[name])}")
    own_labels = as_labels("labels", labels, len(items))
    their_labels = None if others is None else as_labels("gallery_labels", gallery_labels, len(others))
    query_class, gallery_class = as_codes("labels", own_labels, their_labels)
    exclude = None
    if groups is not None:
        own_groups = as_labels("groups", groups, len(items))
        their_groups = None if others is None else as_labels("gallery_groups", gallery_groups, len(others))
        query_group, gallery_group = as_codes("groups", own_groups, their_groups)
        number = int(max(query_group.max(), gallery_group.max())) + 1
        exclude = (query_class * number + query_group, gallery_class * number + gallery_group)
    searching = Search(items, others, exclude=exclude, **search)

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
    at_k = dict(zip(map_ks, rest, strict=True))
    return Ranking(
        relevant.cpu().numpy(), first_hit, r_precision, average_precision, margin, neighbours, scores, own_labels, at_k
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
    nearest_rival = rival.int().argmax(1, keepdim=True)
    # queries that are equally near must be equally sure, so what is kept is scored in double precision
    kept = torch.cat([index[:, : asked.keep], index.gather(1, nearest_rival)], dim=1)
    kept[~rival.any(1), -1] = -1
    exact = block.exact(torch.cat([scores[:, : asked.keep], scores.gather(1, nearest_rival)], dim=1), kept)
    exact.masked_fill_(kept < 0, -torch.inf)
    margin = exact[:, 0] - exact[:, -1]
    margin[index[:, 0] < 0] = torch.nan
    fields = (first_hit, r_precision, average_precision, margin, kept[:, :-1], exact[:, :-1], *at_k)
    return tuple(field.cpu() for field in fields)


def _checked(search: dict[str, Any]) -> dict[str, Any]:
    """The options of the search, before anything is computed."""
    search = {"metric": "cosine", "tau": TAU, **search}
    one_of("metric", search["metric"], METRICS)
    search["tau"] = as_positive(search["tau"], "tau")
    if search.get("block_size") is not None:
        search["block_size"] = as_count(search["block_size"], "block_size")
    search["device"] = as_device(search.get("device"))
    return search


__all__ = ["AVERAGES", "Ranking", "rank"]
