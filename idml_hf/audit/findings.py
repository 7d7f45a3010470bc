"""Findings: which pictures need a look, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from .class_scores import ClassScores
from .copies import Copies
from .expected_precision import ExpectedPrecision
from .pictures import LEAST_CONTRAST, SMALLEST_SIDE, Pictures

KINDS = {
    "wrong_label": "Probably a wrong label",
    "conflict": "The same or nearly the same picture in two classes",
    "leak": "The same or nearly the same picture in training and test",
    "redundant": "The same or nearly the same picture twice in a class",
    "ambiguous": "Another class is as likely",
    "foreign": "Like nothing in the collection",
    "unreadable": "Cannot be read",
    "tiny": "Tiny",
    "blank": "Shows nothing",
}
"""Kinds of findings, and what they mean."""


class Finding(NamedTuple):
    """A picture that needs a look.

    Args:
        path: Path of the picture, or its name in its source.
        label: Name of its class.
        suggested_label: Of a wrong or ambiguous label the likelier class, of a copy the class of the other picture.
        kind: One of `KINDS`.
        score: How much so, 0 to 1: of labels the probability of all other classes together, as the class models see
            it; of copies the correlation of the pictures; of foreign pictures 1 less the largest cosine with another
            one; 1 for the rest.
        expected_precision: Of wrong labels the share expected to be wrong among those with at least this score.
        duplicate_of: Of a copy the path of the other picture.
        place: Position of the picture in the collection.
        other: Position of the other picture, or -1.
    """

    path: str
    label: str
    suggested_label: str
    kind: str
    score: float
    expected_precision: float | None
    duplicate_of: str
    place: int
    other: int


COLUMNS = Finding._fields[:7]
"""Columns of `findings.csv`."""


@dataclass(frozen=True)
class Collection:
    """What is known of N pictures before they are judged.

    Args:
        ids: Path or name of each.
        labels: int64 `(N,)`, -1 where there is none.
        class_names: Name of each label.
        splits: Split of each, the later ones test what the first trains.
    """

    ids: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    splits: np.ndarray

    def name(self, label: int) -> str:
        """Name of a class; empty for -1."""
        return self.class_names[label] if label >= 0 else ""


@dataclass
class _Finder:
    collection: Collection
    found: list[Finding] = field(default_factory=list)

    def add(self, place: int, kind: str, score: float, **more: Any) -> None:
        label = self.collection.name(int(self.collection.labels[place]))
        values = {"suggested_label": "", "expected_precision": None, "duplicate_of": "", "other": -1} | more
        self.found.append(
            Finding(path=self.collection.ids[place], label=label, kind=kind, score=score, place=int(place), **values)
        )


def find_unusable(collection: Collection, pictures: Pictures) -> list[Finding]:
    """Pictures that cannot be read, are tiny, or show nothing."""
    finder = _Finder(collection)
    for place in np.flatnonzero(~pictures.readable).tolist():
        finder.add(place, "unreadable", 1.0)
    for place in np.flatnonzero(pictures.readable & (pictures.shorter_side < SMALLEST_SIDE)).tolist():
        finder.add(place, "tiny", 1.0)
    for place in np.flatnonzero(pictures.readable & (pictures.contrast < LEAST_CONTRAST)).tolist():
        finder.add(place, "blank", 1.0)
    return finder.found


def find_doubtful_labels(
    collection: Collection,
    places: np.ndarray,
    scores: ClassScores,
    expected: ExpectedPrecision,
    least_precision: float,
) -> list[Finding]:
    """Labels that are probably wrong or ambiguous, and pictures like no other.

    Args:
        collection: The pictures.
        places: Positions of those that were judged.
        scores: Of these, from `cross_fit`.
        expected: Of these, from `expected_precision`.
        least_precision: Wrong labels are listed as far as this share of the list is expected to be wrong, 0 to 1.
    """
    finder = _Finder(collection)
    odds = scores.log_odds
    low, high = np.nanquantile(scores.nearest, [0.25, 0.75])
    is_foreign = scores.nearest < low - 1.5 * (high - low)  # Tukey's fence
    is_wrong = ~is_foreign & (np.nan_to_num(expected.above, nan=0.0) >= least_precision)
    is_ambiguous = ~is_foreign & ~is_wrong & (np.nan_to_num(odds, nan=-np.inf) > 0)
    probability = expit(odds)
    for at in np.flatnonzero(is_foreign):
        finder.add(places[at], "foreign", float(np.clip(1 - scores.nearest[at], 0, 1)))
    for kind, mask in (("wrong_label", is_wrong), ("ambiguous", is_ambiguous)):
        for at in np.flatnonzero(mask):
            finder.add(
                places[at],
                kind,
                float(probability[at]),
                suggested_label=collection.name(int(scores.suggested[at])),
                expected_precision=float(expected.above[at]) if kind == "wrong_label" else None,
            )
    return finder.found


def find_copied(collection: Collection, copies: Copies, odds: np.ndarray) -> list[Finding]:
    """The same picture twice: in two classes, in two splits, or in one class.

    Args:
        collection: The pictures.
        copies: From `find_copies`, by positions in the collection.
        odds: float64 `(N,)`, log odds against each label: of two classes, the less likely one is in doubt.
    """
    finder = _Finder(collection)
    odds = np.nan_to_num(odds, nan=-np.inf)
    for (first, second), likeness in zip(copies.pairs.tolist(), copies.likeness.tolist(), strict=True):
        one, other = collection.labels[first], collection.labels[second]
        place, kept = second, first
        if one != other:
            kind = "conflict"
            if odds[first] > odds[second]:
                place, kept = first, second
        elif collection.splits[first] != collection.splits[second]:
            # what is to be left out is the picture to train on
            kind, place, kept = "leak", min(first, second), max(first, second)
        else:
            kind = "redundant"
        finder.add(
            place,
            kind,
            likeness,
            suggested_label=collection.name(int(collection.labels[kept])) if kind == "conflict" else "",
            duplicate_of=collection.ids[kept],
            other=int(kept),
        )
    return finder.found


def in_order(findings: list[Finding]) -> list[Finding]:
    """By kind, those with the highest score first."""
    kinds = list(KINDS)
    return sorted(findings, key=lambda f: (kinds.index(f.kind), -f.score, f.place))


def counts(findings: list[Finding]) -> dict[str, int]:
    """Number of findings of each kind."""
    found = Counter(finding.kind for finding in findings)
    return {kind: found[kind] for kind in KINDS}


__all__ = [
    "COLUMNS",
    "KINDS",
    "Collection",
    "Finding",
    "counts",
    "find_copied",
    "find_doubtful_labels",
    "find_unusable",
    "in_order",
]
