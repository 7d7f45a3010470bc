"""From query embeddings to the best gallery items, by either metric, exactly or through an engine."""

from __future__ import annotations

import numpy as np
import torch

from idml_hf.index.gallery import Gallery

from .engines import Engine
from .introspective import nearest_introspective, squared_distances
from .nearest import nearest, rescore

METRICS = ("cosine", "introspective")

_SLACK = 8  # candidates beyond k that an engine proposes


def rank(
    gallery: Gallery,
    engine: Engine | None,
    semantic: np.ndarray,
    uncertainty_embeds: np.ndarray,
    k: int,
    metric: str,
    tau: float,
    device: torch.device | str,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` best gallery items of each query.

    Args:
        gallery: N images.
        engine: what proposes items; None compares all.
        semantic: float32 (Q, d), unit rows.
        uncertainty_embeds: float32 (Q, d_u).
        k: 1 to N.
        metric: one of `METRICS`. Through an engine, D ranks the items of largest cosine, some more than `k`.
        tau: temperature of the introspective metric.
        device: where to compare all items.

    Returns:
        `scores` float64 (Q, k), cosine or -D, and `positions` int64 (Q, k), best first, ties by the smaller position;
        -inf and -1 where an engine proposes fewer than `k`.

    Raises:
        ValueError: for an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
    if engine is not None:
        return _rank_candidates(gallery, engine, semantic, uncertainty_embeds, k, metric, tau)
    if metric == "cosine":
        return nearest(semantic, gallery.semantic, k, device)
    found = nearest_introspective(
        semantic, uncertainty_embeds, gallery.semantic, gallery.uncertainty_embeds, k, tau, device
    )
    return found.scores, found.positions


def _rank_candidates(
    gallery: Gallery,
    engine: Engine,
    semantic: np.ndarray,
    uncertainty_embeds: np.ndarray,
    k: int,
    metric: str,
    tau: float,
) -> tuple[np.ndarray, np.ndarray]:
    width = k + _SLACK if metric == "cosine" else 4 * k + 64
    candidates = engine.candidates(semantic, gallery.semantic, min(width, len(gallery)))
    if metric == "cosine":
        return rescore(semantic, gallery.semantic, candidates, k)
    rows = np.repeat(np.arange(len(semantic)), candidates.shape[1])
    squares = squared_distances(
        semantic, uncertainty_embeds, gallery.semantic, gallery.uncertainty_embeds, rows, candidates.ravel(), tau
    ).reshape(candidates.shape)
    squares[candidates < 0] = np.inf
    order = np.lexsort((candidates, squares), axis=1)[:, :k]
    return -np.sqrt(np.take_along_axis(squares, order, 1)), np.take_along_axis(candidates, order, 1)


__all__ = ["METRICS", "rank"]
