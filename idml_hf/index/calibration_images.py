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


LARGER = 3
"""So many times as many images as calibrate it, and a collection is another one than that of the promise."""


def warnings_of(
    trained_on: TrainedOn, queries: LabelledQueries, images: Any = None, size: int | None = None
) -> tuple[str, ...]:
    """What speaks against a promise: training classes that calibrate, or a collection that is much larger.

    Args:
        trained_on: what the model was trained on.
        queries: the labelled images.
        images: where they come from; without pictures, classes are compared by their names.
        size: images of the collection that is searched in, unless these are searched for in it.
    """
    warnings = _training_classes(trained_on, queries, images)
    if size is not None and size > LARGER * len(queries.labels):
        warnings += (
            f"the index has {size} images, but {len(queries.labels)} calibrate it, searched for among each other; a "
            "larger collection has more false matches, so more answers may be wrong than promised",
        )
    return warnings


def _training_classes(trained_on: TrainedOn, queries: LabelledQueries, images: Any) -> tuple[str, ...]:
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


__all__ = ["LARGER", "labelled_queries", "queries_of", "warnings_of"]
