"""What a search says about its own first match: the inputs of the confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DEPTH = 64
"""Matches looked at: the best of another class is sought among them."""

_AGREEING = 10  # matches after the first whose classes are compared with it

SIGNALS = ("similarity", "margin", "mutual_margin", "agreement", "uncertainty", "match_uncertainty")


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
    labels: np.ndarray,
    query_uncertainty: np.ndarray,
    match_uncertainty: np.ndarray,
    search_gallery: Callable[[np.ndarray], Matches],
    query_positions: np.ndarray | None = None,
) -> np.ndarray:
    """The `SIGNALS` of the first match of each query.

    - similarity: its score;
    - margin: its score less the best score of another class;
    - mutual_margin: its score less the best score that the match itself has with a gallery item of another class, so
      whether the query is nearer to it than any impostor is;
    - agreement: share of the next 10 matches of its class;
    - uncertainty, match_uncertainty: of the query and of the match.

    An item of unknown class counts as one of another class. Where all `DEPTH` matches are of one class, the last of
    them stands for the best of another.

    Args:
        matches: of the queries.
        labels: int64 (N,), of the gallery.
        query_uncertainty: float (Q,).
        match_uncertainty: float (Q,), of the first matches.
        search_gallery: the matches of the gallery items at some positions, themselves among them or not.
        query_positions: int64 (Q,), where the queries are themselves gallery items: they are then left out of the
            matches of their matches.

    Returns:
        float64 (Q, len(SIGNALS)).
    """
    first = matches.positions[:, 0]
    best = matches.scores[:, 0]
    own = _same_class(labels, matches.positions, first)
    own[:, 0] = True
    distinct, inverse = np.unique(first, return_inverse=True)
    theirs = search_gallery(distinct)
    their_scores, their_positions = theirs.scores[inverse], theirs.positions[inverse]
    not_impostor = _same_class(labels, their_positions, first) | (their_positions == first[:, None])
    if query_positions is not None:
        not_impostor |= their_positions == query_positions[:, None]
    signals = np.stack(
        [
            best,
            best - _best_other(matches.scores, own),
            best - _best_other(their_scores, not_impostor),
            own[:, 1 : 1 + _AGREEING].sum(1) / _AGREEING,
            query_uncertainty,
            match_uncertainty,
        ],
        axis=1,
    )
    return signals.astype(np.float64)


def _same_class(labels: np.ndarray, positions: np.ndarray, first: np.ndarray) -> np.ndarray:
    known = labels[first] >= 0
    return (labels[positions] == labels[first, None]) & known[:, None] & (positions >= 0)


def _best_other(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Best score that is not `own`, (Q,); where there is none, the last score."""
    others = np.where(own, -np.inf, scores).max(1)
    last = np.where(np.isfinite(scores), scores, np.inf).min(1)
    return np.where(np.isfinite(others), others, last)


__all__ = ["DEPTH", "SIGNALS", "Matches", "match_signals"]
