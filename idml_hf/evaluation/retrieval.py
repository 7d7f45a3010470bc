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

from collections.abc import Iterable
from typing import Any

import torch

from idml_hf.errors import one_of
from idml_hf.similarity import TAU

from .arguments import as_ks
from .ranking import AVERAGES, Ranking, rank


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
    tau: float = TAU,
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


__all__ = ["Ranking", "rank", "retrieval_metrics"]
