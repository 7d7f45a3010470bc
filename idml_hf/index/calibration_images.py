"""The labelled images that an index is calibrated with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from idml_hf.confidence.labelled_queries import LabelledQueries
from idml_hf.data import ImageSet, VectorSet
from idml_hf.embedding import Embeddings
from idml_hf.hub.trained_on import TrainedOn

from .gallery import Gallery


def labelled_queries(
    embeddings: Embeddings, images: ImageSet | VectorSet | Sequence[Any], cohort: np.ndarray | None = None
) -> LabelledQueries:
    """The images whose class is known; `cohort` is that of their model.

    Raises:
        ValueError: if no class is known.
    """
    if not isinstance(images, (ImageSet, VectorSet)) or not (images.labels >= 0).any():
        raise ValueError("calibration takes labelled images: put each class into a folder of its own")
    known = np.flatnonzero(images.labels >= 0)
    groups = None if images.groups is None else images.groups[known]
    return LabelledQueries(
        embeddings.semantic[known],
        embeddings.uncertainty_embeds[known],
        images.labels[known],
        images.class_names,
        groups,
        cohort,
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


def warnings_of(trained_on: TrainedOn, queries: LabelledQueries, images: Any = None) -> tuple[str, ...]:
    """What is to be said where the model was trained on classes that calibrate it.

    Args:
        trained_on: what the model was trained on.
        queries: the labelled images.
        images: where they come from; without pictures, classes are compared by their names.
    """
    labels = np.unique(queries.labels)
    if isinstance(images, ImageSet):
        known = trained_on.known_classes(images)
    else:
        known = trained_on.known_names(queries.class_names)
    number = int(known[labels].sum()) if len(known) else 0
    if not number:
        return ()
    return (
        f"{number} of the {len(labels)} classes are among those that the model was trained on, by name or picture; it "
        "knows them better than new ones, so more answers may be wrong than promised: calibrate with other classes",
    )


__all__ = ["labelled_queries", "queries_of", "warnings_of"]
