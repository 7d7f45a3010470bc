"""Labelled queries whose first matches are known to be right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from idml_hf.data import ImageSet
from idml_hf.embedding import Embeddings
from idml_hf.index.gallery import Gallery
from idml_hf.search.exact import top_k

from .class_means import ClassMeans
from .features import DEPTH, Matches, match_signals


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


def queries_of(gallery: Gallery) -> LabelledQueries:
    """The images of a gallery whose class is known.

    Raises:
        ValueError: if no class is known.
    """
    known = np.flatnonzero(gallery.labels >= 0)
    if not len(known):
        raise ValueError("calibration takes labelled images: the classes of those in the index are not known")
    rows = gallery.semantic[known], gallery.uncertainty_embeds[known]
    return LabelledQueries(*rows, gallery.labels[known], gallery.class_names)


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
    first = matches.positions[:, 0]
    their_matches = search(first)
    rows = queries.semantic[counted]
    class_margin = ClassMeans.of(queries.semantic, labels).margin(
        rows,
        labels[first],
        np.einsum("qd,qd->q", rows, queries.semantic[first]),
        labels[counted],
        ClassMeans.of(queries.semantic, codes).sums[codes[counted]],
    )
    uncertainty = np.linalg.norm(queries.uncertainty_embeds, axis=1)
    ignored = codes[their_matches.positions] == codes[counted, None]
    signals = match_signals(
        matches, their_matches, labels, class_margin, uncertainty[counted], uncertainty[first], ignored
    )
    correct = labels[first] == labels[counted]
    return JudgedQueries(signals, correct, queries.labels[counted], len(everything) - len(counted))


__all__ = ["JudgedQueries", "LabelledQueries", "judge_among_themselves", "labelled_queries", "queries_of"]
