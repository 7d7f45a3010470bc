"""`nearest`: the one function that searches arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from idml_hf.errors import one_of
from idml_hf.similarity import TAU

from .arrays import as_count, as_positive, finite_rows, number_rows, unit_rows
from .exact import top_k
from .faiss_exact import can_search, nearest_by_faiss
from .introspective import nearest_introspective
from .rescoring import SLACK, best, rescore
from .scores import METRICS


def nearest(
    queries: Any,
    gallery: Any,
    k: int = 10,
    metric: str = "cosine",
    *,
    uncertainty: Any = None,
    gallery_uncertainty: Any = None,
    tau: float = TAU,
    exclude: tuple[Any, Any] | None = None,
    device: torch.device | str | None = None,
    are_unit_rows: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest gallery items of each query, exactly.

    Whatever computes it, the result is the same: faiss or torch, on the processor or on a GPU, by comparing everything
    or by bounds on the introspective distance. Scores are in double precision, rounded to multiples of 2**-40; equal
    ones are in the order of the positions.

    Args:
        queries: (Q, d) array or tensor; Q may be 0.
        gallery: (N, d) array or tensor, which may be mapped from a file; N may be 0.
        k: matches a query.
        metric: `"cosine"`; `"euclidean"`; or `"introspective"`, the distance D of [`idml_hf.similarity`].
        uncertainty: (Q, d_u) uncertainty embeddings of the queries, for the introspective metric; None means 0.
        gallery_uncertainty: (N, d_u) those of the gallery; None means 0.
        tau: temperature of the introspective metric, above 0.
        exclude: two integer arrays (Q,) and (N,); gallery items with the query's number are ignored.
        device: where to compute; default: where the queries are (arrays: the processor).
        are_unit_rows: promises that queries and gallery are finite float32 arrays of rows of norm 1, and uncertainties
            finite float32 arrays: a large gallery is then not looked through before it is searched.

    Returns:
        `scores` float64 (Q, k), the cosine or the negative distance, and `positions` int64 (Q, k), best first; -inf
        and -1 where fewer than `k` are left.

    Raises:
        ValueError: naming the argument at fault. Rows of zeros have no direction, so only the euclidean metric takes
            them; the size of the others does not matter to the other metrics.

    Example:
        >>> scores, positions = nearest([[1.0, 0.1]], [[0.0, 2.0], [3.0, 0.0], [6.0, 0.0]], k=2)
        >>> scores.round(3).tolist(), positions.tolist()
        ([[0.995, 0.995]], [[1, 2]])
    """
    k = as_count(k, "k")
    one_of("metric", metric, METRICS)
    if device is None:
        device = queries.device if isinstance(queries, Tensor) else "cpu"
    device = torch.device(device)
    if not are_unit_rows:
        check = number_rows if metric == "euclidean" else unit_rows
        queries, gallery = check(queries, "queries"), check(gallery, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, the gallery {gallery.shape[1]}")
    doubts: dict[str, Any] = {}
    if metric == "introspective":
        u, gallery_u = _uncertainties(uncertainty, gallery_uncertainty, len(queries), len(gallery), are_unit_rows)
        doubts = {"uncertainty": u, "gallery_uncertainty": gallery_u, "tau": as_positive(tau, "tau")}
    found = min(k, len(gallery))
    if not len(queries) or not found:
        return best(np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64), k)
    if exclude is None and metric == "cosine" and can_search(device, found + SLACK):
        scores, positions = nearest_by_faiss(queries, gallery, found, device)
    elif exclude is None and metric == "introspective" and device.type == "cpu":
        matches = nearest_introspective(queries, u, gallery, gallery_u, found, doubts["tau"])
        scores, positions = matches.scores, matches.positions
    else:
        exact = top_k(queries, gallery, found, metric=metric, exclude=exclude, device=device, **doubts)
        scores, positions = exact[0].numpy(), exact[1].numpy()
        if metric != "euclidean":
            scores, positions = rescore(queries, gallery, positions, found, **doubts)
    return best(scores, positions, k)


def _uncertainties(
    queries: Any, gallery: Any, number: int, gallery_number: int, checked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Both as float32 matrices; None stands for 0."""
    if not checked:
        queries = None if queries is None else finite_rows(queries, "uncertainty", number)
        gallery = None if gallery is None else finite_rows(gallery, "gallery_uncertainty", gallery_number)
    width = next((rows.shape[1] for rows in (queries, gallery) if rows is not None), 1)
    queries = np.zeros((number, width), np.float32) if queries is None else queries
    gallery = np.zeros((gallery_number, width), np.float32) if gallery is None else gallery
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"uncertainty has {queries.shape[1]} dimensions, gallery_uncertainty {gallery.shape[1]}")
    return queries, gallery


__all__ = ["nearest"]
