"""Exact scores and the order of matches: what every search ends in, whatever has proposed its candidates.

A score, the cosine or less the square of D, is computed in double precision and rounded to a multiple of 2**-40. Equal
scores go to the smaller position.
Neither depends on how candidates were found, nor on the processor, the number of threads or the size of a block.
"""

from __future__ import annotations

import numpy as np

from idml_hf.similarity import TAU

BITS = 40
STEPS = 2.0**BITS
"""Scores are multiples of 1 / STEPS: those that are nearer to each other are ties."""

SLACK = 8
"""Candidates beyond k that a search in single precision proposes, to be scored again."""

_ELEMENTS = 2**22  # float64 numbers held at a time


def rounded(scores: np.ndarray) -> np.ndarray:
    """Scores as multiples of `1 / STEPS`."""
    return np.round(scores * STEPS) / STEPS


def single_precision_error(dimensions: int) -> float:
    """How far the float32 product of two unit rows may be from the exact one, their own rounding included."""
    return (dimensions + 16) * 2.0**-24


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each row of `left` (P, d) and the same row of `right`, float64 (P,); 0 for a row of zeros.

    Example:
        >>> cosines(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [2.0, 2.0]])).tolist()
        [0.0, 1.0]
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.sqrt(np.einsum("pd,pd->p", left, left)) * np.sqrt(np.einsum("pd,pd->p", right, right))
    dot = np.einsum("pd,pd->p", left, right)
    return np.clip(rounded(np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0)), -1.0, 1.0)


def cosines_of_pairs(queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Cosines of `queries[rows[i]]` and `gallery[positions[i]]`, float64 (P,); the arrays may be mapped from files."""
    scores = np.empty(len(rows))
    step = max(1, _ELEMENTS // queries.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        scores[part] = cosines(queries[rows[part]], gallery[positions[part]])
    return scores


def squared_distances(
    queries: np.ndarray,
    query_uncertainty: np.ndarray,
    gallery: np.ndarray,
    gallery_uncertainty: np.ndarray,
    rows: np.ndarray,
    positions: np.ndarray,
    tau: float,
) -> np.ndarray:
    """D**2 of the introspective distance D of `queries[rows[i]]` and `gallery[positions[i]]`, float64 (P,)."""
    squares = np.empty(len(rows))
    step = max(1, _ELEMENTS // (queries.shape[1] + query_uncertainty.shape[1]))
    for start in range(0, len(rows), step):
        r, p = rows[start : start + step], positions[start : start + step]
        q, g = (x.astype(np.float64) for x in (queries[r], gallery[p]))
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
        u = query_uncertainty[r].astype(np.float64) + gallery_uncertainty[p]
        distance = introspective(np.linalg.norm(q - g, axis=1), np.linalg.norm(u, axis=1), tau)
        squares[start : start + step] = distance**2
    return rounded(squares)


def introspective(alpha: np.ndarray, beta: np.ndarray, tau: float) -> np.ndarray:
    """`alpha * exp(-beta / (tau * alpha))`, 0 at alpha = 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(alpha > 0, alpha * np.exp(-beta / (tau * alpha)), 0)


def best(scores: np.ndarray, positions: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` largest scores of each query, ties by the smaller position.

    Args:
        scores: float64 (Q, C).
        positions: int64 (Q, C), of which -1 stands for none.
        k: How many to keep.

    Returns:
        `scores` float64 (Q, k) and `positions` int64 (Q, k); -inf and -1 where there are fewer than `k`.

    Example:
        >>> best(np.array([[0.5, 0.9, 0.5]]), np.array([[7, 2, 3]]), k=2)
        (array([[0.9, 0.5]]), array([[2, 3]]))
    """
    scores = np.where(positions < 0, -np.inf, scores)
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    scores, positions = np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
    missing = ((0, 0), (0, k - scores.shape[1]))
    if missing[1][1] > 0:
        scores = np.pad(scores, missing, constant_values=-np.inf)
        positions = np.pad(positions, missing, constant_values=-1)
    return scores, positions


def rescore(
    queries: np.ndarray,
    gallery: np.ndarray,
    candidates: np.ndarray,
    k: int,
    *,
    uncertainty: np.ndarray | None = None,
    gallery_uncertainty: np.ndarray | None = None,
    tau: float = TAU,
) -> tuple[np.ndarray, np.ndarray]:
    """The best `k` of each query's candidates.

    Args:
        queries: float32 (Q, d), unit rows.
        gallery: float32 (N, d), unit rows.
        candidates: int64 (Q, C), positions without repeats; -1 stands for none.
        k: How many to keep.
        uncertainty, gallery_uncertainty: float32 (Q, d_u) and (N, d_u), to score by the introspective distance; None
            scores by the cosine.
        tau: Temperature of that distance.

    Returns:
        `scores` float64 (Q, k), cosines or -D, and `positions` int64 (Q, k); -inf and -1 where there are fewer.
    """
    rows = np.repeat(np.arange(len(queries)), candidates.shape[1])
    found = candidates.ravel() >= 0
    rows, positions = rows[found], candidates.ravel()[found]
    scores = np.full(candidates.shape, -np.inf)
    if uncertainty is None or gallery_uncertainty is None:
        scores[candidates >= 0] = cosines_of_pairs(queries, gallery, rows, positions)
        return best(scores, candidates, k)
    squares = squared_distances(queries, uncertainty, gallery, gallery_uncertainty, rows, positions, tau)
    scores[candidates >= 0] = -np.sqrt(squares)
    return best(scores, candidates, k)


__all__ = [
    "BITS",
    "SLACK",
    "STEPS",
    "best",
    "cosines",
    "cosines_of_pairs",
    "introspective",
    "rescore",
    "rounded",
    "single_precision_error",
    "squared_distances",
]
