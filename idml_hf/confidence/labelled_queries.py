"""Labelled queries whose first matches are known to be right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from idml_hf.search.exact import top_k

from .collection import Collection
from .features import DEPTH, Matches, OwnImages, match_signals


@dataclass(frozen=True)
class LabelledQueries:
    """Embedded images of known class.

    Args:
        semantic: float32 (Q, d), unit rows.
        uncertainty_embeds: float32 (Q, d_u).
        labels: int64 (Q,), numbers of `class_names`.
        class_names: name of each label.
        groups: int64 (Q,), or None.
    """

    semantic: np.ndarray
    uncertainty_embeds: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class JudgedQueries:
    """What a search says about the first match of each query, and whether it is right.

    Args:
        signals: float64 (Q, len(SIGNALS)).
        correct: bool (Q,).
        classes: int64 (Q,).
        lone: queries left out since there was nothing of their class to find.
    """

    signals: np.ndarray
    correct: np.ndarray
    classes: np.ndarray
    lone: int = 0


def judge_among_themselves(
    queries: LabelledQueries, metric: str = "cosine", tau: float = 5.0, device: torch.device | str = "cpu"
) -> JudgedQueries:
    """Search for each query among all others but those of its class and group, if there are groups.

    Queries without another of their class to find are left out.

    Raises:
        ValueError: if there are fewer than two queries, or nothing to find for any.
    """
    if len(queries.labels) < 2:
        raise ValueError("calibration takes more than one labelled image")
    labels, everything = np.unique(queries.labels, return_inverse=True)[1], np.arange(len(queries.labels))
    # what a query must not see has its code
    codes = everything
    if queries.groups is not None:
        codes = np.unique(np.stack([labels, queries.groups], 1), axis=0, return_inverse=True)[1].reshape(-1)
    counted = np.flatnonzero(np.bincount(labels)[labels] > np.bincount(codes)[codes])
    if not len(counted):
        raise ValueError("no validation image has another one of its class to find")

    def search(rows: np.ndarray, exclude: Any = None) -> Matches:
        options: dict[str, Any] = {"metric": metric, "exclude": exclude, "device": device}
        if metric == "introspective":
            options |= {"uncertainty": queries.uncertainty_embeds[rows], "tau": tau}
            options["gallery_uncertainty"] = queries.uncertainty_embeds
        depth = min(DEPTH, len(everything))
        scores, positions = top_k(queries.semantic[rows], queries.semantic, depth, **options)
        return Matches(scores.numpy(), positions.numpy())

    matches = search(counted, (codes[counted], codes))
    collection = Collection(queries.semantic, np.linalg.norm(queries.uncertainty_embeds, axis=1), labels)
    signals = match_signals(
        collection,
        queries.semantic[counted],
        collection.uncertainty[counted],
        matches,
        search,
        OwnImages(labels[counted], codes[counted], codes),
    )
    correct = labels[matches.positions[:, 0]] == labels[counted]
    return JudgedQueries(signals, correct, queries.labels[counted], len(everything) - len(counted))


__all__ = ["JudgedQueries", "LabelledQueries", "judge_among_themselves"]
