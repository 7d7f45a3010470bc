"""Find the same picture twice: exact copies, and crops, recompressed and resized ones.

Features propose, pixels decide: of the pictures most alike in features, those are copies of which one, or a window of
it, looks like the other. Neither is enough alone: features see the same kind of drawing as alike, and windows of
simple drawings look like many others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idml_hf.search import nearest

# chosen on the training classes of two data sets
CANDIDATES = 8  # nearest pictures that may be copies
LEAST_COSINE = 0.6  # of their centred features
LEAST_LIKENESS = 0.97  # correlation of the grey values of windows
_SCALES = (1.0, 0.966, 0.933, 0.9, 0.866, 0.833, 0.8)  # sides of windows, as shares of the picture's
_SIDE = 16  # pixels at which windows are compared
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
        small: uint8 `(N, S, S)` in grey, from `look_at`.
        digests: Hash of each picture; those of one hash are exact copies.

    Returns:
        The pairs, by their positions. Exact copies are each paired with the first of them.
    """
    exact = _exact(digests)
    pairs, cosine = _candidates(features)
    pairs = pairs[cosine >= LEAST_COSINE]
    likeness = _likeness(small, pairs)
    found = likeness >= LEAST_LIKENESS
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
    """Largest correlation of a window of one picture of each pair with the other."""
    return np.maximum(_best_window(small, pairs), _best_window(small, pairs[:, ::-1]))


def _best_window(small: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Largest correlation of a window of the first picture of each pair with the second."""
    windows = [_windows(small.shape[1], scale) for scale in _SCALES]
    out = np.zeros(len(pairs))
    order = np.argsort(pairs[:, 0], kind="stable")
    for start in range(0, len(order), _PAIRS):
        at = order[start : start + _PAIRS]
        wholes, place = np.unique(pairs[at, 0], return_inverse=True)
        seen = np.concatenate([_through(small[wholes], of_scale) for of_scale in windows], axis=1)
        target = _through(small[pairs[at, 1]], windows[0])
        out[at] = np.einsum("pws,pvs->pwv", seen[place], target).max(axis=(1, 2))
    return out


def _windows(side: int, scale: float) -> np.ndarray:
    """Linear maps `(W, _SIDE, side)` of a line of pixels to its windows of one size, by the area that pixels cover."""
    width = scale * side
    starts = np.linspace(0, side - width, 1 + int(np.ceil(side - width)))
    edges = starts[:, None] + np.linspace(0, width, _SIDE + 1)
    covered = np.clip(edges[:, :, None] - np.arange(side), 0, 1)
    return (np.diff(covered, axis=1) * (_SIDE / width)).astype(np.float32)


def _through(pictures: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Each picture through all windows of a size, `(n, W * W, _SIDE * _SIDE)`, of mean 0 and norm 1."""
    lines = np.einsum("wst,ntx->nwsx", windows, pictures.astype(np.float32), optimize=True)
    seen = np.einsum("nwsx,vqx->nwvsq", lines, windows, optimize=True)
    flat = seen.reshape(len(pictures), len(windows) ** 2, -1)
    flat -= flat.mean(axis=2, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-6)


__all__ = ["CANDIDATES", "LEAST_COSINE", "LEAST_LIKENESS", "Copies", "find_copies"]
