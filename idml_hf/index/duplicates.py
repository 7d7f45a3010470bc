"""Pairs of images that are nearly the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from idml_hf.search.approximate import ApproximateSearch
from idml_hf.search.arrays import as_tensor
from idml_hf.search.rescoring import cosines_of_pairs, single_precision_error

_ROWS, _COLUMNS = 1024, 4096
_NEIGHBOURS = 16  # of a row that an engine is asked for


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images, the most alike first.

    Args:
        ids: int64 (P, 2).
        scores: float64 (P,), cosine similarity of each pair.
    """

    ids: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def near_duplicates(
    semantic: np.ndarray, threshold: float, max_pairs: int, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows with a cosine of at least `threshold`, or the `max_pairs` most alike of them.

    Args:
        semantic: float32 (N, d), unit rows.
        threshold: cosine, -1 to 1.
        max_pairs: how many pairs to return at most.
        device: where to compare.

    Returns:
        `positions` int64 (P, 2), the smaller first, and `scores` float64 (P,), in falling order.

    Example:
        >>> rows = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
        >>> near_duplicates(rows, 0.9, max_pairs=10)
        (array([[0, 2]]), array([1.]))
    """
    rows = as_tensor(semantic).to(device)
    error = single_precision_error(semantic.shape[1])
    best = (np.empty((0, 2), dtype=np.int64), np.empty(0))
    for top in range(0, len(rows), _ROWS):
        for left in range(top, len(rows), _COLUMNS):
            cosines = rows[top : top + _ROWS] @ rows[left : left + _COLUMNS].T
            found = (cosines >= threshold - error).nonzero().cpu().numpy() + np.array([top, left])
            found = found[found[:, 0] < found[:, 1]]
            if not len(found):
                continue
            scores = cosines_of_pairs(semantic, semantic, *found.T)
            found, scores = found[scores >= threshold], scores[scores >= threshold]
            best = _most_alike(np.concatenate([best[0], found]), np.concatenate([best[1], scores]), max_pairs)
            if len(best[1]) == max_pairs:
                threshold = float(best[1][-1])
    return best


def near_duplicates_by(
    engine: ApproximateSearch, semantic: np.ndarray, threshold: float, max_pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `near_duplicates`, of the pairs that an engine finds among the nearest `_NEIGHBOURS` of each row."""
    found = []
    for start in range(0, len(semantic), 2**14):
        rows = semantic[start : start + 2**14]
        candidates = engine.candidates(rows, min(_NEIGHBOURS + 1, len(semantic)))
        first = np.repeat(np.arange(start, start + len(rows)), candidates.shape[1])
        pairs = np.sort(np.stack([first, candidates.ravel()], 1)[candidates.ravel() >= 0], axis=1)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        found.append(pairs[cosines_of_pairs(semantic, semantic, *pairs.T) >= threshold])
    pairs = np.unique(np.concatenate(found), axis=0)
    return _most_alike(pairs, cosines_of_pairs(semantic, semantic, *pairs.T), max_pairs)


def _most_alike(pairs: np.ndarray, scores: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -scores))[:number]
    return pairs[order], scores[order]


__all__ = ["NearDuplicates", "near_duplicates", "near_duplicates_by"]
