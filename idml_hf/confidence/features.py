"""What a search says about its own first match: the inputs of the confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from idml_hf.search import nearest

from .class_means import ClassMeans
from .collection import Collection

DEPTH = 32
"""Matches looked at: the best of another class is sought among them."""

_AGREEING = 10  # matches after the first whose classes are compared with it
_FEW = 3  # matches of a class that are averaged
_SHARP, _SOFT = 0.03, 0.1  # temperatures of the votes
_COHORT = 10  # nearest of the cohort that are averaged

INPUTS = (
    "similarity",
    "margin",
    "impostor_margin",
    "class_margin",
    "class_similarity",
    "compactness",
    "few_margin",
    "agreement",
    "vote",
    "soft_vote",
    "query_density",
    "match_density",
    "uncertainty",
    "match_uncertainty",
    "cohort_similarity",
)
KNOWN = (*INPUTS, "mutual_margin")
"""The last one is an input of the first edition's calibrations only: it takes a second search."""

LESS_IS_BETTER = ("uncertainty", "match_uncertainty", "cohort_similarity")
"""The larger any other input, the better the match."""

STRANGE_IF_LESS = ("cohort_similarity",)
"""The less, the better the match, but what is less than all that were seen is another kind of picture."""

SAME_PICTURE = 1 - 1e-4
"""Cosine from which on two items of the gallery count as the same picture."""


@dataclass(frozen=True)
class Matches:
    """The best gallery items of Q queries.

    Args:
        scores: float64 (Q, D), best first; -inf for none.
        positions: int64 (Q, D); -1 for none.
    """

    scores: np.ndarray
    positions: np.ndarray

    def best(self, k: int) -> Matches:
        """The first `k` of each query."""
        return Matches(self.scores[:, :k], self.positions[:, :k])

    def rows(self, rows: np.ndarray | slice) -> Matches:
        """Those of some queries."""
        return Matches(self.scores[rows], self.positions[rows])

    def without(self, hidden: np.ndarray) -> Matches:
        """The others move up in the place of those that are `hidden`, bool (Q, D)."""
        order = np.argsort(hidden, axis=1, kind="stable")
        scores, positions = np.where(hidden, -np.inf, self.scores), np.where(hidden, -1, self.positions)
        return Matches(np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1))


@dataclass(frozen=True, eq=False)
class MatchInputs:
    """What there is to judge the first match of each query by.

    Args:
        values: float64 (Q, number of inputs); a row of NaN where nothing was found.
        rivals: int64 (Q,), another class under which the collection holds the picture that was matched; -1 for none.
    """

    values: np.ndarray
    rivals: np.ndarray


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

    def hidden(self, positions: np.ndarray) -> np.ndarray:
        """Whether a query must not see the items at `positions` (Q, D)."""
        return (self.gallery_codes[positions] == self.codes[:, None]) & (positions >= 0)

    def rows(self, rows: np.ndarray | slice) -> OwnImages:
        """Those of some queries."""
        return OwnImages(self.labels[rows], self.codes[rows], self.gallery_codes)


def match_inputs(
    collection: Collection,
    semantic: np.ndarray,
    uncertainty: np.ndarray,
    matches: Matches,
    own: OwnImages | None = None,
    *,
    use: Sequence[str] = INPUTS,
    search: Callable[[np.ndarray], Matches] | None = None,
) -> MatchInputs:
    """The inputs of the confidence for the first match of each query.

    Scores: similarity (of the first match), margin (less the best of another class), vote and soft_vote (share of the
    first match's class among the matches, weighted by exp(score / 0.03) and exp(score / 0.1)), few_margin (mean of the
    best 3 of its class less that of the best such class; a missing one counts as the last match), agreement (share of
    the next 10 matches of its class), query_density (score less the mean of the next 10).

    Cosines: impostor_margin (with the first match, less the best that the first match has with a match of another
    class), class_margin and class_similarity (with the mean direction of its class, less and not less the best such
    cosine of another class), compactness (mean of the first match with the matches of its class), match_density (with
    the first match, less the mean of the first match with all matches).

    Besides: uncertainty and match_uncertainty; and cohort_similarity, the mean cosine of the query with the 10 nearest
    images of a cohort of other classes, if the collection has one. Where these are near, so are false matches: what
    speaker verification takes off a score by cohort normalisation (Auckenthaler et al., 2000). The size of the match's
    class is none of them: in a calibration a query is missing from its own class, and where classes are of one size
    that would give it away.

    An item of unknown class counts as one of another class. Where all matches looked at are of one class, the last of
    them stands for the best of another.

    Args:
        collection: the gallery.
        semantic: float32 (Q, d), unit rows.
        uncertainty: (Q,), of the queries.
        matches: of the queries, without what `own` hides.
        own: for queries that are in the gallery themselves, what they must not see.
        use: names of `KNOWN` inputs.
        search: for the first edition's "mutual_margin": matches of the gallery's items at some positions.
    """
    matches = matches.best(DEPTH)
    columns = {name: np.full(len(semantic), np.nan) for name in KNOWN}
    rivals = np.full(len(semantic), -1)
    found = np.flatnonzero(matches.positions[:, 0] >= 0)
    step = max(1, 2**23 // (semantic.shape[1] * max(1, matches.scores.shape[1])))
    for start in range(0, len(found), step):
        rows = found[start : start + step]
        near, rivals[rows] = _near_inputs(collection, semantic[rows], matches.rows(rows))
        for name, values in near.items():
            columns[name][rows] = values
    first = matches.positions[found, 0]
    columns["uncertainty"][found] = uncertainty[found]
    columns["match_uncertainty"][found] = collection.uncertainty[first]
    seen = None if own is None else own.rows(found)
    cosine = np.einsum("qd,qd->q", semantic[found], collection.semantic[first])
    hidden: dict[str, Any] = {}
    if seen is not None:
        left_out = ClassMeans.of(collection.semantic, seen.gallery_codes)
        hidden = {
            "query_labels": seen.labels,
            "left_out": left_out,
            "left_out_rows": left_out.rows_of(seen.codes),
        }
    margins = collection.class_means.margin(semantic[found], collection.labels[first], cosine, **hidden)
    columns["class_margin"][found], columns["class_similarity"][found] = margins
    if "cohort_similarity" in use and collection.cohort is not None:
        k = min(_COHORT, len(collection.cohort))
        alike, _ = nearest(semantic[found], collection.cohort, k, are_unit_rows=True)
        columns["cohort_similarity"][found] = alike.mean(1)
    if "mutual_margin" in use:
        assert search is not None
        columns["mutual_margin"][found] = _mutual_margin(collection, matches.rows(found), search, seen)
    return MatchInputs(np.stack([columns[name] for name in use], axis=1), rivals)


def _near_inputs(
    collection: Collection, semantic: np.ndarray, matches: Matches
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inputs that come from the matches alone, and the rivals; each query has a first match."""
    scores, positions, labels = matches.scores, matches.positions, collection.labels
    first, best, there = positions[:, 0], scores[:, 0], positions >= 0
    ours = _same_class(labels, positions, first)
    last = np.where(there, scores, np.inf).min(1)
    cosine = np.einsum("qd,qd->q", semantic, collection.semantic[first])
    between = np.einsum("qd,qkd->qk", collection.semantic[first], collection.semantic[positions])
    others = np.where(ours | ~there, -np.inf, between).max(1, initial=-np.inf)
    after = scores[:, 1 : 1 + _AGREEING]
    weight = np.where(there, np.exp((scores - best[:, None]) / _SHARP), 0)
    soft = np.where(there, np.exp((scores - best[:, None]) / _SOFT), 0)
    mine = ours[:, 1:] & there[:, 1:]
    same = ~ours & there & (between >= SAME_PICTURE) & (labels[positions] >= 0)
    rivals = np.where(same.any(1), labels[positions[np.arange(len(first)), same.argmax(1)]], -1)
    inputs = {
        "similarity": best,
        "margin": best - _best_other(scores, ours),
        "impostor_margin": cosine - np.where(np.isfinite(others), others, np.where(there, between, np.inf).min(1)),
        "compactness": (between[:, 1:] * mine).sum(1) / np.maximum(mine.sum(1), 1),
        "few_margin": _few_margin(scores, np.where(there, labels[positions], -1), ours, last),
        "agreement": ours[:, 1 : 1 + _AGREEING].sum(1) / _AGREEING,
        "vote": (weight * ours).sum(1) / weight.sum(1),
        "soft_vote": (soft * ours).sum(1) / soft.sum(1),
        "query_density": best - np.where(np.isfinite(after), after, last[:, None]).sum(1) / max(1, after.shape[1]),
        "match_density": cosine - (between * there).sum(1) / there.sum(1),
    }
    return inputs, np.where(labels[first] >= 0, rivals, -1)


def _few_margin(scores: np.ndarray, labels: np.ndarray, ours: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mean score of the best few of the first match's class, less the largest such mean of another class."""
    alike = (labels[:, :, None] == labels[:, None, :]) & (labels >= 0)[:, :, None]
    alike |= np.eye(labels.shape[1], dtype=bool)
    rank = np.tril(alike).sum(2)
    among = rank <= _FEW
    excess = np.where(among & np.isfinite(scores), scores - last[:, None], 0)
    mean = np.where(among, np.einsum("qij,qj->qi", np.tril(alike), excess), 0) / _FEW
    return np.where(ours, mean, 0).max(1) - np.where(ours, 0, mean).max(1)


def _mutual_margin(
    collection: Collection, matches: Matches, search: Callable[[np.ndarray], Matches], own: OwnImages | None
) -> np.ndarray:
    """Score less the best score that the match itself has with any gallery item of another class."""
    first = matches.positions[:, 0]
    distinct, inverse = np.unique(first, return_inverse=True)
    theirs = search(distinct).rows(inverse)
    same = _same_class(collection.labels, theirs.positions, first)
    if own is not None:
        same |= own.hidden(theirs.positions)
    return matches.scores[:, 0] - _best_other(theirs.scores, same)


def _same_class(labels: np.ndarray, positions: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Which items are of the class of the item `first`, or that item."""
    known = labels[first, None] >= 0
    return ((labels[positions] == labels[first, None]) & known & (positions >= 0)) | (positions == first[:, None])


def _best_other(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Best score that is not `own`, (Q,); where there is none, the last score."""
    others = np.where(own, -np.inf, scores).max(1)
    last = np.where(np.isfinite(scores), scores, np.inf).min(1)
    return np.where(np.isfinite(others), others, last)


__all__ = [
    "DEPTH",
    "INPUTS",
    "KNOWN",
    "LESS_IS_BETTER",
    "SAME_PICTURE",
    "STRANGE_IF_LESS",
    "MatchInputs",
    "Matches",
    "OwnImages",
    "match_inputs",
]
