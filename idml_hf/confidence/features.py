"""What a search says about its own first match: the inputs of the confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


def match_signals(
    matches: Matches,
    their_matches: Matches,
    labels: np.ndarray,
    class_margin: np.ndarray,
    uncertainty: np.ndarray,
    match_uncertainty: np.ndarray,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """The `SIGNALS` of the first match of each query.

    - similarity: its score;
    - margin: its score less the best score of another class;
    - mutual_margin: its score less the best score that the match itself has with a gallery item of another class: is
      the query nearer to it than any impostor?
    - class_margin: as given, see [`~idml_hf.confidence.class_means.ClassMeans.margin`];
    - agreement: share of the next 10 matches of its class;
    - uncertainty, match_uncertainty: as given, of query and match.

    An item of unknown class counts as one of another class. Where all matches looked at are of one class, the last of
    them stands for the best of another.

    Args:
        matches: of the queries.
        their_matches: what the gallery holds nearest to the first match of each query, with or without itself.
        labels: int64 (N,), of the gallery.
        class_margin, uncertainty, match_uncertainty: float (Q,).
        ignored: bool (Q, D), items of `their_matches` that the query must not see.

    Returns:
        float64 (Q, len(SIGNALS)).
    """
    first, best = matches.positions[:, 0], matches.scores[:, 0]
    own = _same_class(labels, matches.positions, first)
    theirs = _same_class(labels, their_matches.positions, first)
    signals = {
        "similarity": best,
        "margin": best - _best_other(matches.scores, own),
        "mutual_margin": best - _best_other(their_matches.scores, theirs if ignored is None else theirs | ignored),
        "class_margin": class_margin,
        "agreement": own[:, 1 : 1 + _AGREEING].sum(1) / _AGREEING,
        "uncertainty": uncertainty,
        "match_uncertainty": match_uncertainty,
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


__all__ = ["DEPTH", "SIGNALS", "Matches", "match_signals"]
