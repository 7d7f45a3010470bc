"""Exact cosine search by faiss, with the result of [`~idml_hf.search.exact.top_k`]: on the processor, or on a GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from .exact import top_k
from .rescoring import SLACK, rescore, single_precision_error

try:
    import faiss
except ImportError:
    faiss = None  # type: ignore[assignment]

_MOST_ON_GPU = 2048  # matches that faiss gives on a GPU


def can_search(device: torch.device, width: int) -> bool:
    """Whether faiss is there for a device: `faiss-cpu` for the processor, `faiss-gpu` for a GPU."""
    if faiss is None or device.type == "cpu":
        return faiss is not None
    return device.type == "cuda" and width <= _MOST_ON_GPU and faiss.get_num_gpus() > (device.index or 0)


def nearest_by_faiss(
    queries: np.ndarray, gallery: np.ndarray, k: int, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` gallery rows of largest cosine similarity.

    faiss proposes some more than `k` by a product in single precision, and these are scored again. Where that product
    cannot tell the last of them from the k-th, the query is compared with all rows by `top_k`.

    Args:
        queries: float32 (Q, d), unit rows.
        gallery: float32 (N, d), unit rows; may be mapped from a file.
        k: 1 to N.
        device: Where to compute; see `can_search`.

    Returns:
        `scores` float64 (Q, k) and `positions` int64 (Q, k), best first, ties by the smaller position.

    Example:
        >>> scores, positions = nearest_by_faiss(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), k=1)
        >>> scores.tolist(), positions.tolist()
        ([[1.0], [1.0]], [[0], [1]])
    """
    width = min(k + SLACK, len(gallery))
    proposed, candidates = _knn(queries, gallery, width, torch.device(device))
    scores, positions = rescore(queries, gallery, candidates, k)
    if width < len(gallery):
        error = 2 * single_precision_error(queries.shape[1])
        # written so that it holds for NaN as well
        unsure = np.flatnonzero(~(proposed[:, k - 1] - proposed[:, -1] > error))
        if len(unsure):
            exact = top_k(queries[unsure], gallery, k, device=device)[1].numpy()
            scores[unsure], positions[unsure] = rescore(queries[unsure], gallery, exact, k)
    return scores, positions


def _knn(queries: np.ndarray, gallery: np.ndarray, width: int, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    if device.type == "cpu":
        return faiss.knn(queries, gallery, width, faiss.METRIC_INNER_PRODUCT)
    resources = _resources(device.index or 0)
    where: dict[str, Any] = {"metric": faiss.METRIC_INNER_PRODUCT, "device": device.index or 0}
    proposed, candidates = faiss.knn_gpu(resources, queries, gallery, width, **where)
    return np.asarray(proposed), np.asarray(candidates)


@cache
def _resources(device: int) -> Any:
    return faiss.StandardGpuResources()


__all__ = ["can_search", "nearest_by_faiss"]
