"""What the confidence knows of the gallery that a search looks into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .class_means import ClassMeans


@dataclass(frozen=True, eq=False)
class Collection:
    """N embedded images and their classes.

    Args:
        semantic: float32 (N, d), unit rows.
        uncertainty: (N,), norm of each uncertainty embedding.
        labels: int64 (N,), -1 where the class is unknown.
        cohort: float32 (M, d), unit rows: images of other classes than any query's, as those that the model was
            trained on are; or None.
    """

    semantic: np.ndarray
    uncertainty: np.ndarray
    labels: np.ndarray
    cohort: np.ndarray | None = None

    @cached_property
    def class_means(self) -> ClassMeans:
        """The mean direction of each class."""
        return ClassMeans.of(self.semantic, self.labels)


__all__ = ["Collection"]
