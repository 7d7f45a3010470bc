"""Labelled queries whose first matches are known to be right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data import ImageSet
from .embed import Embeddings
from .signals import DEPTH, Matches, match_signals
from .topk import top_k


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


def labelled_queries(embeddings: Embeddings, images: ImageSet) -> LabelledQueries:
    """The images whose class is known.

    Raises:
        ValueError: if no class is known.
    """
    if not isinstance(images, ImageSet) or not (images.labels >= 0).any():
        raise ValueError("calibration takes labelled images: put each class into a folder of its own")
    known = np.flatnonzero(images.labels >= 0)
    groups = None if images.groups is None else images.groups[known]
    return LabelledQueries(
        embeddings.semantic[known],
        embeddings.uncertainty_embeds[known],
        images.labels[known],
        images.class_names,
        groups,
    )


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
    number = np.arange(len(queries.labels))
    codes = number
    if queries.groups is not None:
        pairs = np.stack([queries.labels, queries.groups], 1)
        codes = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    found = np.bincount(queries.labels)[queries.labels] - np.bincount(codes)[codes]
    counted = np.flatnonzero(found > 0)
    if not len(counted):
        raise ValueError("no validation image has another one of its class to find")

    def search(rows: np.ndarray, exclude: Any = None) -> Matches:
        options: dict[str, Any] = {"metric": metric, "exclude": exclude, "device": device}
        if metric == "introspective":
            options |= {"uncertainty": queries.uncertainty_embeds[rows], "tau": tau}
            options["gallery_uncertainty"] = queries.uncertainty_embeds
        scores, positions = top_k(queries.semantic[rows], queries.semantic, min(DEPTH, len(number)), **options)
        return Matches(scores.numpy(), positions.numpy())

    matches = search(counted, (codes[counted], codes))
    uncertainty = np.linalg.norm(queries.uncertainty_embeds, axis=1)
    first = matches.positions[:, 0]
    signals = match_signals(matches, queries.labels, uncertainty[counted], uncertainty[first], search, counted)
    correct = queries.labels[first] == queries.labels[counted]
    return JudgedQueries(signals, correct, queries.labels[counted], len(number) - len(counted))


__all__ = ["JudgedQueries", "LabelledQueries", "judge_among_themselves", "labelled_queries"]
