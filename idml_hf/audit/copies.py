"""Find the same picture twice: exact copies, and crops, recompressed and resized ones.

Features propose, pixels decide: of the pictures most alike in features, those are copies of which one, or a window of
it, looks like the other. Neither is enough alone: features see the same kind of drawing as alike, and windows of
simple drawings look like many others.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from idml_hf.search import nearest

# chosen on the training classes of two data sets
CANDIDATES = 8  # nearest pictures that may be copies
LEAST_COSINE = 0.6  # of their centred features
LEAST_LIKENESS = 0.89  # of colours of windows, where they differ most
_COSINE_WEIGHT = 0.1  # beside the likeness, to choose among pictures that are alike
_SCALES = (1.0, 0.966, 0.933, 0.9, 0.866, 0.833, 0.8)  # sides of windows, as shares of the picture's
_SIDE = 16  # pixels at which windows are compared
_BLOCK = 4  # side of what is compared at a time, where two pictures differ most
_GLANCE = 0.9  # correlation from which on a closer look is worthwhile
_PAIRS = 256


class Copies(NamedTuple):
    """Pairs of pictures.

    Args:
        pairs: int64 `(P, 2)`, the smaller position first.
        likeness: float64 `(P,)`, 1 for exact copies.
    """

    pairs: np.ndarray
    likeness: np.ndarray


def find_copies(features: np.ndarray, small: np.ndarray, digests: list[bytes]) -> Copies:
    """Pairs of pictures that are the same, or nearly so.

    Args:
        features: float32 `(N, F)`.
        small: uint8 `(N, S, S, 3)`, from `look_at`.
        digests: Hash of each picture; those of one hash are exact copies.

    Returns:
        The pairs, by their positions. Exact copies are each paired with the first of them, near copies with the
        picture most like them.
    """
    exact = _exact(digests)
    pairs, cosine = _candidates(features)
    near = cosine >= LEAST_COSINE
    pairs, cosine = pairs[near], cosine[near]
    likeness = _likeness(small, pairs)
    found = (likeness >= LEAST_LIKENESS) & _best_of_one(pairs, likeness + _COSINE_WEIGHT * cosine, len(small))
    pairs, likeness = pairs[found], np.minimum(likeness[found], 0.9999)
    known = {tuple(pair) for pair in exact.tolist()}
    first = {int(later): int(earlier) for earlier, later in exact}
    # a near copy of a copy is one of the first
    pairs = np.array([[first.get(a, a), first.get(b, b)] for a, b in pairs.tolist()], dtype=np.int64).reshape(-1, 2)
    pairs.sort(axis=1)
    pairs, at = np.unique(pairs, axis=0, return_index=True)
    likeness = likeness[at]
    new = np.array([a != b and (a, b) not in known for a, b in pairs.tolist()], dtype=bool)
    order = np.argsort(-likeness[new], kind="stable")
    return Copies(
        np.concatenate([exact, pairs[new][order]]), np.concatenate([np.ones(len(exact)), likeness[new][order]])
    )


def _best_of_one(pairs: np.ndarray, score: np.ndarray, number: int) -> np.ndarray:
    """Pairs that are the best of one of their pictures: of many like drawings each is paired with the most alike."""
    best = np.full(number, -np.inf)
    for side in (0, 1):
        np.maximum.at(best, pairs[:, side], score)
    return (score >= best[pairs].min(axis=1)) if len(pairs) else np.zeros(0, dtype=bool)


def _exact(digests: list[bytes]) -> np.ndarray:
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(digest, at), at) for at, digest in enumerate(digests)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2)


def _candidates(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centred = features - features.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    # one that is all mean is near to nothing
    usable = np.flatnonzero(np.linalg.norm(centred, axis=1) > 0.5)
    cosine, places = nearest(centred[usable], centred[usable], min(CANDIDATES + 1, len(usable)))
    pairs = np.stack([np.repeat(usable, places.shape[1]), usable[places.ravel()]], axis=1)
    pairs.sort(axis=1)
    pairs, at = np.unique(pairs, axis=0, return_index=True)
    other = pairs[:, 0] != pairs[:, 1]
    return pairs[other], cosine.ravel()[at][other]


def _likeness(small: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How like each other the pictures of each pair are where they differ most, 0 to 1, one through a window."""
    grey = small.mean(axis=3, dtype=np.float32)
    out = np.zeros(len(pairs))
    for ordered in (pairs, pairs[:, ::-1]):
        order = np.argsort(ordered[:, 0], kind="stable")
        for start in range(0, len(order), _PAIRS):
            at = order[start : start + _PAIRS]
            correlation, windows = _best_windows(grey, ordered[at])
            closer = correlation >= _GLANCE
            at = at[closer]
            out[at] = np.maximum(out[at], _closer(small, ordered[at], windows[closer]))
    return out


def _best_windows(grey: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The window of the first picture of each pair most like the second: correlation, and left, top and side."""
    wholes, place = np.unique(pairs[:, 0], return_inverse=True)
    target = _standardised(_resampled(grey[pairs[:, 1]], _lines(grey.shape[1], [[0.0, grey.shape[1]]])))
    best, windows = np.full(len(pairs), -1.0), np.zeros((len(pairs), 3))
    for scale in _SCALES:
        side = scale * grey.shape[1]
        starts = np.linspace(0, grey.shape[1] - side, 1 + int(np.ceil(grey.shape[1] - side)))
        seen = _standardised(_resampled(grey[wholes], _lines(grey.shape[1], [[first, side] for first in starts])))
        correlation = np.einsum("pws,pvs->pw", seen[place], target)
        chosen = correlation.argmax(axis=1)
        value = correlation[np.arange(len(pairs)), chosen]
        top, left = np.divmod(chosen, len(starts))
        better = value > best
        best[better] = value[better]
        windows[better] = np.stack([starts[left], starts[top], np.full(len(pairs), side)], axis=1)[better]
    return best, windows


def _closer(small: np.ndarray, pairs: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The likeness of each pair through windows near those given, in colour, where they differ most."""
    whole = small[pairs[:, 0]].astype(np.float32)
    side = small.shape[1]
    full = _lines(side, np.array([[0.0, side]]))
    target = np.einsum("wst,ntxc,wqx->nsqc", full, small[pairs[:, 1]].astype(np.float32), full, optimize=True)
    best = np.zeros(len(pairs))
    for shift in itertools.product((-0.5, 0.0, 0.5), (-0.5, 0.0, 0.5), (-0.5, 0.0, 0.5)):
        x, y, wider = shift
        left, top, width = (windows + np.array([x - wider / 2, y - wider / 2, wider])).T
        width = np.minimum(width, side)
        left, top = np.clip(left, 0, side - width), np.clip(top, 0, side - width)
        across, down = _lines(side, np.stack([left, width], 1)), _lines(side, np.stack([top, width], 1))
        seen = np.einsum("nst,ntxc->nsxc", down, whole, optimize=True)
        seen = np.einsum("nqx,nsxc->nsqc", across, seen, optimize=True)
        apart = (
            np.abs(seen - target).mean(axis=3).reshape(len(pairs), _SIDE // _BLOCK, _BLOCK, _SIDE // _BLOCK, _BLOCK)
        )
        best = np.maximum(best, 1 - apart.mean(axis=(2, 4)).max(axis=(1, 2)) / 255)
    return best


def _lines(side: int, windows: Any) -> np.ndarray:
    """Linear maps `(W, _SIDE, side)` of a line of pixels to its windows, by the area that pixels cover.

    Args:
        side: Pixels of the line.
        windows: Start and width of each, pixels.
    """
    start, width = np.asarray(windows, dtype=np.float64).T
    edges = start[:, None] + width[:, None] * np.linspace(0, 1, _SIDE + 1)
    covered = np.clip(edges[:, :, None] - np.arange(side), 0, 1)
    return (np.diff(covered, axis=1) * (_SIDE / width)[:, None, None]).astype(np.float32)


def _resampled(pictures: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Each picture through all windows, `(n, W * W, _SIDE * _SIDE)`."""
    seen = np.einsum("wst,ntx->nwsx", lines, pictures, optimize=True)
    seen = np.einsum("nwsx,vqx->nwvsq", seen, lines, optimize=True)
    return seen.reshape(len(pictures), len(lines) ** 2, -1)


def _standardised(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=2, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), 1e-6)


__all__ = ["CANDIDATES", "LEAST_COSINE", "LEAST_LIKENESS", "Copies", "find_copies"]
