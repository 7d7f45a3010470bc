"""Exact cosine search over arrays: faiss where it is installed, torch otherwise, with the same result."""

from __future__ import annotations

import numpy as np
import torch

from .exact import top_k

try:
    import faiss
except ImportError:
    faiss = None  # type: ignore[assignment]

_SLACK = 8  # candidates beyond k that faiss proposes
_ROUND = 2.0**40  # scores closer than this are ties, and go to the smaller position


def nearest(
    queries: np.ndarray, gallery: np.ndarray, k: int, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` gallery rows of largest cosine similarity: the result of [`~idml_hf.search.exact.top_k`].

    Args:
        queries: float32 (Q, d), unit rows.
        gallery: float32 (N, d), unit rows; may be mapped from a file.
        k: 1 to N.
        device: where to compute; faiss is used on the CPU only.

    Returns:
        `scores` float64 (Q, k) and `positions` int64 (Q, k), best first, ties by the smaller position.

    Example:
        >>> scores, positions = nearest(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), k=1)
        >>> scores.tolist(), positions.tolist()
        ([[1.0], [1.0]], [[0], [1]])
    """
    if faiss is None or torch.device(device).type != "cpu":
        exact = top_k(queries, gallery, k, device=device)
        return exact[0].numpy(), exact[1].numpy()
    width = min(k + _SLACK, len(gallery))
    proposed, candidates = faiss.knn(queries, gallery, width, faiss.METRIC_INNER_PRODUCT)
    scores, positions = rescore(queries, gallery, candidates, k)
    if width < len(gallery):
        # float32 may have left out an item whose score it cannot tell from the k-th
        error = (queries.shape[1] + 4) * 2.0**-24
        unsure = np.flatnonzero(proposed[:, k - 1] - proposed[:, -1] <= 2 * error)
        if len(unsure):
            exact = top_k(queries[unsure], gallery, k)
            scores[unsure], positions[unsure] = exact[0].numpy(), exact[1].numpy()
    return scores, positions


def rescore(queries: np.ndarray, gallery: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `k` of each query's candidates by cosine in double precision.

    Args:
        queries: float32 (Q, d), unit rows.
        gallery: float32 (N, d), unit rows.
        candidates: int64 (Q, C), positions without repeats; -1 stands for none.
        k: how many to keep, at most C.

    Returns:
        `scores` float64 (Q, k) and `positions` int64 (Q, k); -inf and -1 where there are fewer than k.
    """
    scores = np.empty(candidates.shape)
    step = max(1, 2**22 // (candidates.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        q, g = queries[part].astype(np.float64), gallery[candidates[part]].astype(np.float64)
        norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(g, axis=2)
        scores[part] = np.einsum("qd,qcd->qc", q, g) / norms
    scores = np.minimum(np.round(scores * _ROUND) / _ROUND, 1.0)
    scores[candidates < 0] = -np.inf
    order = np.lexsort((candidates, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(candidates, order, 1)


__all__ = ["nearest", "rescore"]
