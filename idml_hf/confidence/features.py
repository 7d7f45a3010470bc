"""What a search says about its own first match: the inputs of the confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .class_means import ClassMeans
from .collection import Collection

DEPTH = 64
"""Matches looked at: the best of another class is sought among them."""

_AGREEING = 10  # matches after the first whose classes are compared with it

SIGNALS = (
    "similarity",
    "margin",
    "mutual_margin",
    "class_margin",
    "agreement",
    "uncertainty",
    "match_uncertainty",
)


@dataclass(frozen=True)
class Matches:
    """The `DEPTH` (or all) best gallery items of Q queries.

    Args:
        scores: float64 (Q, D), best first; -inf for none.
        positions: int64 (Q, D); -1 for none.
    """

    scores: np.ndarray
    positions: np.ndarray

    def best(self, k: int) -> Matches:
        """The first `k` of each query."""
        return Matches(self.scores[:, :k], self.positions[:, :k])


@dataclass(frozen=True, eq=False)
class OwnImages:
    """What Q queries must not see of the gallery that they are themselves in.

    Args:
        labels: int64 (Q,), class of each query.
        codes: int64 (Q,), and
        gallery_codes: int64 (N,): a query does not see the items of its code, all of its class, itself included.
    """

    labels: np.ndarray
    codes: np.ndarray
    gallery_codes: np.ndarray


def match_signals(
    collection: Collection,
    semantic: np.ndarray,
    uncertainty: np.ndarray,
    matches: Matches,
    search: Callable[[np.ndarray], Matches],
    own: OwnImages | None = None,
) -> np.ndarray:
    """The `SIGNALS` of the first match of each query.

    - similarity: its score;
    - margin: its score less the best score of another class;
    - mutual_margin: its score less the best score that the match itself has with a gallery item of another class: is
      the query nearer to it than any impostor?
    - class_margin: see [`~idml_hf.confidence.class_means.ClassMeans.margin`];
    - agreement: share of the next 10 matches of its class;
    - uncertainty, match_uncertainty: of query and match.

    An item of unknown class counts as one of another class. Where all matches looked at are of one class, the last of
    them stands for the best of another.

    Args:
        collection: the gallery.
        semantic: float32 (Q, d), unit rows.
        uncertainty: (Q,), of the queries.
        matches: of the queries, without what `own` hides.
        search: matches of the gallery's items at some positions, themselves included or not.
        own: for queries that are in the gallery themselves, what they must not see.

    Returns:
        float64 (Q, len(SIGNALS)).
    """
    labels, matches = collection.labels, matches.best(DEPTH)
    first, best = matches.positions[:, 0], matches.scores[:, 0]
    distinct, inverse = np.unique(first, return_inverse=True)
    found = search(distinct).best(DEPTH)
    their_matches = Matches(found.scores[inverse], found.positions[inverse])
    ours, theirs = (_same_class(labels, found.positions, first) for found in (matches, their_matches))
    hidden: dict[str, np.ndarray] = {}
    if own is not None:
        theirs |= own.gallery_codes[their_matches.positions] == own.codes[:, None]
        codes = ClassMeans.of(collection.semantic, own.gallery_codes)
        hidden = {"query_labels": own.labels, "left_out": codes.sums[codes.rows_of(own.codes)]}
    similarity = np.einsum("qd,qd->q", semantic, collection.semantic[first])
    signals = {
        "similarity": best,
        "margin": best - _best_other(matches.scores, ours),
        "mutual_margin": best - _best_other(their_matches.scores, theirs),
        "class_margin": collection.class_means.margin(semantic, labels[first], similarity, **hidden),
        "agreement": ours[:, 1 : 1 + _AGREEING].sum(1) / _AGREEING,
        "uncertainty": uncertainty,
        "match_uncertainty": collection.uncertainty[first],
    }
    return np.stack([signals[name] for name in SIGNALS], axis=1).astype(np.float64)


def _same_class(labels: np.ndarray, positions: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Which items are of the class of the item `first`, or that item."""
    known = labels[first, None] >= 0
    return ((labels[positions] == labels[first, None]) & known & (positions >= 0)) | (positions == first[:, None])


def _best_other(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Best score that is not `own`, (Q,); where there is none, the last score."""
    others = np.where(own, -np.inf, scores).max(1)
    last = np.where(np.isfinite(scores), scores, np.inf).min(1)
    return np.where(np.isfinite(others), others, last)


__all__ = ["DEPTH", "SIGNALS", "Matches", "OwnImages", "match_signals"]
