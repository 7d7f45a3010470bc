"""Labelled queries whose first matches are known to be right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from idml_hf.search import nearest
from idml_hf.similarity import TAU

from .collection import Collection
from .features import DEPTH, INPUTS, Matches, OwnImages, match_inputs

MOST_QUERIES = 4000
"""Labelled queries that are searched for unless told otherwise: more hardly move a threshold."""

_HIDDEN = 64  # matches beyond `DEPTH` in the first search, for those that a query must not see
_BLOCK = 4096  # queries searched for at a time

Search = Callable[..., Matches]


@dataclass(frozen=True, eq=False)
class LabelledQueries:
    """Embedded images of known class.

    Args:
        semantic: float32 (Q, d), unit rows.
        uncertainty_embeds: float32 (Q, d_u).
        labels: int64 (Q,), numbers of `class_names`.
        class_names: name of each label.
        groups: int64 (Q,), or None.
        cohort: float32 (M, d), images of other classes, as for [`~idml_hf.confidence.collection.Collection`]; or None.
    """

    semantic: np.ndarray
    uncertainty_embeds: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    cohort: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> LabelledQueries:
        """Some of the images, by position or by a mask."""
        return replace(
            self,
            semantic=self.semantic[rows],
            uncertainty_embeds=self.uncertainty_embeds[rows],
            labels=self.labels[rows],
            groups=None if self.groups is None else self.groups[rows],
        )


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a search says about the first matches of M queries, and whether they are right.

    Args:
        inputs: float64 (M, len(INPUTS)); NaN for those that are not known.
        correct: bool (M,).
        classes: int64 (M,), of each query.
        answers: int64 (M,), class of each first match, in the numbers of `classes`.
        present: bool (M,), whether the gallery has images of the query's class; where it has not, none is right.
        rivals: int64 (M,), another class that holds the picture that was matched; -1 for none.
        lone: queries left out among those that are present, since there was nothing of their class to find.
    """

    inputs: np.ndarray
    correct: np.ndarray
    classes: np.ndarray
    answers: np.ndarray
    present: np.ndarray
    rivals: np.ndarray
    lone: int = 0

    def signals(self, names: Sequence[str]) -> np.ndarray:
        """The inputs of these names, float64 (M, len(names))."""
        return self.inputs[:, [INPUTS.index(name) for name in names]]

    def select(self, rows: np.ndarray) -> Outcomes:
        """Some of the queries, by position or by a mask."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    @classmethod
    def joined(cls, parts: Sequence[Outcomes], lone: int = 0) -> Outcomes:
        """All queries of some outcomes."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        return cls(**columns, lone=lone)


_COLUMNS = ("inputs", "correct", "classes", "answers", "present", "rivals")


def judge_among_themselves(
    queries: LabelledQueries,
    metric: str = "cosine",
    tau: float = TAU,
    device: torch.device | str = "cpu",
    *,
    most: int | None = MOST_QUERIES,
    seed: int = 0,
    hide_labels: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Outcomes:
    """Search for each query among all others, twice: as it is, and with its whole class left out of the gallery.

    The first time a query does not see the images of its class and group, if there are groups, and is left out if
    nothing of its class remains. The second time shows what a query looks like whose class the gallery lacks.

    Args:
        queries: labelled images; all are in the gallery.
        metric: ranking whose first match is judged.
        tau: temperature of the introspective metric.
        device: where to compare.
        most: queries to search for, drawn at random; None: all.
        seed: of the draw.
        hide_labels: whether the inputs are those of a collection without labels, and the labels tell only what is
            right: what is learnt then holds where nothing is labelled.
        progress: called with the number of queries done since it was last called.

    Raises:
        ValueError: if there are fewer than two queries, or nothing to find for any.
    """
    if len(queries.labels) < 2:
        raise ValueError("calibration takes more than one labelled image")
    classes, labels = np.unique(queries.labels, return_inverse=True)
    everything = np.arange(len(labels))
    # what a query must not see has its code
    codes = everything
    if queries.groups is not None:
        codes = np.unique(np.stack([labels, queries.groups], 1), axis=0, return_inverse=True)[1].reshape(-1)
    findable = np.bincount(labels)[labels] > np.bincount(codes)[codes]
    if not findable.any():
        raise ValueError("no validation image has another one of its class to find")
    asked = everything
    if most is not None and most < len(asked):
        asked = np.sort(np.random.default_rng(seed).choice(asked, most, replace=False))
    uncertainty = np.linalg.norm(queries.uncertainty_embeds, axis=1)
    shown = np.full(len(labels), -1) if hide_labels else labels
    collection = Collection(queries.semantic, uncertainty, shown, queries.cohort)
    search = _search_in(queries, metric, tau, device)
    parts = []
    for start in range(0, len(asked), _BLOCK):
        rows = asked[start : start + _BLOCK]
        block = _Block(
            collection,
            labels,
            queries.semantic[rows],
            collection.uncertainty[rows],
            labels[rows],
            lambda some, k, exclude, rows=rows: search(rows[some], k, exclude),
        )
        here = np.flatnonzero(findable[rows])
        parts.append(block.judge(here, codes[rows], codes))
        parts.append(block.judge(np.arange(len(rows)), labels[rows], labels, present=False))
        if progress is not None:
            progress(len(rows))
    outcomes = Outcomes.joined(parts, int((~findable[asked]).sum()))
    return replace(outcomes, classes=classes[outcomes.classes], answers=classes[outcomes.answers])


def judge_against(
    collection: Collection, semantic: np.ndarray, uncertainty: np.ndarray, labels: np.ndarray, search: Search
) -> Outcomes:
    """Search for queries in a gallery that does not hold them: as it is, and with their whole class left out of it.

    Args:
        collection: the gallery.
        semantic: float32 (Q, d), unit rows.
        uncertainty: (Q,), of the queries.
        labels: int64 (Q,), the queries' classes by the numbers of the gallery; numbers that it does not have where it
            lacks the class.
        search: matches of the queries at some positions, so many, without those of some numbers (see
            [`~idml_hf.search.nearest`]) if any are named.
    """
    block = _Block(collection, collection.labels, semantic, uncertainty, labels, search)
    there = np.isin(labels, collection.labels)
    as_it_is = block.judge(np.arange(len(labels)))
    parts = [replace(as_it_is, present=np.isin(as_it_is.classes, collection.labels))]
    if there.any():
        parts.append(block.judge(np.flatnonzero(there), labels, collection.labels, present=False))
    return Outcomes.joined(parts)


@dataclass(frozen=True, eq=False)
class _Block:
    """Queries, the gallery that they are searched for in, and how; the gallery may not know its own labels."""

    collection: Collection
    gallery_labels: np.ndarray
    semantic: np.ndarray
    uncertainty: np.ndarray
    labels: np.ndarray
    search: Search

    @cached_property
    def near(self) -> Matches:
        """Enough matches that what a query must not see can be taken out, mostly."""
        return self.search(np.arange(len(self.labels)), min(DEPTH + _HIDDEN, len(self.gallery_labels)), None)

    def judge(
        self,
        rows: np.ndarray,
        codes: np.ndarray | None = None,
        gallery_codes: np.ndarray | None = None,
        present: bool = True,
    ) -> Outcomes:
        """The first matches of some queries, among what does not have their code (Q,) if there are codes."""
        own, matches = None, self.near.rows(rows)
        if codes is not None and gallery_codes is not None:
            own = OwnImages(self.labels[rows], codes[rows], gallery_codes)
            matches = matches.without(own.hidden(matches.positions)).best(DEPTH)
            # a class of many images may have filled the whole search
            short = np.flatnonzero((matches.positions < 0).any(1))
            if len(short) and self.near.positions.shape[1] < len(gallery_codes):
                again = self.search(rows[short], DEPTH, (own.codes[short], gallery_codes))
                matches.scores[short], matches.positions[short] = again.scores, again.positions
        found = np.flatnonzero(matches.positions[:, 0] >= 0)
        rows, matches, own = rows[found], matches.rows(found), None if own is None else own.rows(found)
        inputs = match_inputs(self.collection, self.semantic[rows], self.uncertainty[rows], matches, own)
        labels, answers = self.labels[rows], self.gallery_labels[matches.positions[:, 0]]
        return Outcomes(inputs.values, answers == labels, labels, answers, np.full(len(rows), present), inputs.rivals)


def _search_in(queries: LabelledQueries, metric: str, tau: float, device: torch.device | str) -> Search:
    def search(rows: np.ndarray, k: int, exclude: Any = None) -> Matches:
        options: dict[str, Any] = {"exclude": exclude, "device": device, "are_unit_rows": True}
        if metric == "introspective":
            options |= {"uncertainty": queries.uncertainty_embeds[rows], "tau": tau}
            options["gallery_uncertainty"] = queries.uncertainty_embeds
        return Matches(*nearest(queries.semantic[rows], queries.semantic, k, metric, **options))

    return search


__all__ = ["MOST_QUERIES", "LabelledQueries", "Outcomes", "judge_against", "judge_among_themselves"]
