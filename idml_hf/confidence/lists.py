"""The shortest list of classes that holds the right one with a promised probability.

Split conformal prediction: each class of the collection has a *surprise*, minus the logarithm of its share by a
softmax over all classes; the list of a query holds the classes whose surprise is at most what that of the right class
was for the promised part of the labelled queries. Of all rules with that coverage, this one has the shortest lists
where the shares are right (Sadinle et al., "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", JASA
2019).

The promise is one for a query and a calibration drawn together, and for queries whose class the collection has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .class_means import ClassMeans
from .labelled_queries import LabelledQueries

HEAT = 0.12
"""Temperature of the softmax, chosen on held-out training classes of two data sets."""

LEVELS = 200
"""Promises are kept in steps of half a percent."""

_MOST = 1000  # labelled queries that the surprise is measured on
_CELLS = 2**24  # similarities held at a time


def surprises(semantic: np.ndarray, gallery: np.ndarray, means: ClassMeans, labels: np.ndarray) -> np.ndarray:
    """The surprise of each class for each query.

    A class's score is the cosine with its best image plus that with the mean direction of its images.

    Args:
        semantic: float32 (Q, d), unit rows.
        gallery: float32 (N, d), unit rows.
        means: of the gallery's C classes.
        labels: int64 (N,), -1 for images of unknown class, which count for none.

    Returns:
        float64 (Q, C), 0 or more, in the order of `means.labels`.
    """
    best = np.concatenate([block for _, block in _best_of_classes(semantic, gallery, labels)])
    return _surprise(best + semantic @ means.directions.T)


def surprise_of_right_classes(queries: LabelledQueries, seed: int = 0) -> np.ndarray:
    """The surprise of the right class, for labelled images that are searched for among each other.

    An image does not see those of its class and group, and is left out if nothing of its class remains.

    Args:
        queries: labelled images; of more than 1,000 some are drawn.
        seed: of the draw.

    Returns:
        float64 (M,), rising.
    """
    labels = np.unique(queries.labels, return_inverse=True)[1]
    codes = np.arange(len(labels))
    if queries.groups is not None:
        codes = np.unique(np.stack([labels, queries.groups], 1), axis=0, return_inverse=True)[1].reshape(-1)
    asked = np.flatnonzero(np.bincount(labels)[labels] > np.bincount(codes)[codes])
    if len(asked) > _MOST:
        asked = np.sort(np.random.default_rng(seed).choice(asked, _MOST, replace=False))
    means, hidden = (ClassMeans.of(queries.semantic, numbers) for numbers in (labels, codes))
    found = []
    for rows, best in _best_of_classes(queries.semantic[asked], queries.semantic, labels, codes[asked], codes):
        rows = asked[rows]
        mine = labels[rows]
        score = best + queries.semantic[rows] @ means.directions.T
        rest = means.sums[mine] - hidden.sums[hidden.rows_of(codes[rows])]
        rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-12)
        at = np.arange(len(rows)), mine
        score[at] = best[at] + np.einsum("qd,qd->q", queries.semantic[rows], rest)
        found.append(_surprise(score)[at])
    return np.sort(np.concatenate(found)) if found else np.zeros(0)


def levels_of(surprise: np.ndarray) -> list[float]:
    """What a surprise must not exceed for lists that miss at most 199/200, 198/200, ... of the right classes.

    Args:
        surprise: float (M,), of right classes.

    Returns:
        200 numbers, the last for lists that miss none of 200; infinite where M is too small for a promise.
    """
    number = len(surprise)
    ranks = np.ceil((number + 1) * np.arange(1, LEVELS + 1) / LEVELS - 1e-9).astype(int)
    return np.append(np.sort(surprise), np.inf)[ranks.clip(max=number + 1) - 1].tolist()


def level(levels: Sequence[float], miss: float) -> float:
    """The largest surprise of a class on a list that may miss the right one with probability `miss`.

    Raises:
        ValueError: if `miss` is not in (0, 1).
    """
    if not 0 < miss < 1:
        raise ValueError(f"the accepted share of lists that miss the right class must be in (0, 1), got {miss}")
    return float(levels[min(int(np.ceil((1 - miss) * LEVELS - 1e-9)), LEVELS) - 1])


def _best_of_classes(
    semantic: np.ndarray,
    gallery: np.ndarray,
    labels: np.ndarray,
    codes: np.ndarray | None = None,
    gallery_codes: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of queries, and their best cosine with an image of each class that they may see, block by block."""
    known = np.flatnonzero(labels >= 0)
    order = known[np.argsort(labels[known], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    rows = gallery[order]
    step = max(1, _CELLS // max(1, len(order)))
    for start in range(0, len(semantic), step):
        block = np.arange(start, min(start + step, len(semantic)))
        similarity = semantic[block] @ rows.T
        if codes is not None and gallery_codes is not None:
            similarity[codes[block, None] == gallery_codes[order]] = -1
        yield block, np.maximum.reduceat(similarity, starts, axis=1)


def _surprise(score: np.ndarray) -> np.ndarray:
    z = score.astype(np.float64) / HEAT
    z -= z.max(1, keepdims=True)
    return np.log(np.exp(z).sum(1, keepdims=True)) - z


__all__ = ["HEAT", "level", "levels_of", "surprise_of_right_classes", "surprises"]
