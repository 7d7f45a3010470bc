"""`VectorSet`: labelled vectors that stand for images, as embeddings of another model or features of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from .image_set import UNLABELLED
from .rows import RowFiles


@dataclass(frozen=True, eq=False)
class VectorSet:
    """N vectors with a class each, and optionally a group each; for a model of vectors what `ImageSet` is for others.

    Args:
        vectors: `(N, width)`, an array or [`RowFiles`].
        labels: int64 (N,), numbers of `class_names`, or -1 where the class is unknown.
        class_names: name of each label.
        ids: string array (N,): what each row is called.
        groups: int64 (N,), group of each row, or None.
        group_column: what the groups stand for, or None.

    Example:
        >>> some = VectorSet.of(np.eye(3), [0, 0, 1], ("cat", "dog"))
        >>> len(some), some.width, some.select(some.labels == 1).ids.to_pylist()
        (3, 3, ['2'])
    """

    vectors: Any = field(repr=False)
    labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    ids: pa.Array = field(repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)
    group_column: str | None = None

    @classmethod
    def of(cls, vectors: Any, labels: Any, class_names: Sequence[str], **columns: Any) -> VectorSet:
        """The set of a matrix, whose rows are called by their numbers.

        Args:
            vectors: As above.
            labels: Integers (N,); None where no class is known.
            class_names: Name of each label.
            columns: Further fields.

        Raises:
            ValueError: for another number of labels, or one that has no name.
        """
        number = len(vectors)
        labels = np.full(number, UNLABELLED) if labels is None else np.asarray(labels)
        if labels.shape != (number,):
            raise ValueError(f"{number} vectors, but {len(labels)} labels")
        if number and not UNLABELLED <= labels.min() <= labels.max() < len(class_names):
            raise ValueError(f"labels must be -1 to {len(class_names) - 1}, not {labels.min()} to {labels.max()}")
        columns.setdefault("ids", pa.array(np.arange(number)).cast(pa.string()))
        return cls(vectors, labels.astype(np.int64), tuple(class_names), **columns)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """Length of each vector."""
        return int(self.vectors.shape[1])

    @property
    def num_classes(self) -> int:
        """Number of class names; 0 if no class is known."""
        return len(self.class_names)

    def select(self, indices: Any) -> VectorSet:
        """The rows at `indices` (integers, or a mask of length N); labels and class names stay."""
        indices = np.arange(len(self))[np.asarray(indices)]
        vectors = self.vectors
        return replace(
            self,
            vectors=vectors.select(indices) if isinstance(vectors, RowFiles) else vectors[indices],
            labels=self.labels[indices],
            ids=self.ids.take(pa.array(indices)),
            groups=None if self.groups is None else self.groups[indices],
        )

    def renumbered(self) -> VectorSet:
        """The same rows with the classes that occur numbered 0, 1, ... in their old order, and no other class."""
        present = np.unique(self.labels[self.labels != UNLABELLED])
        labels = np.where(self.labels == UNLABELLED, UNLABELLED, np.searchsorted(present, self.labels))
        return replace(self, labels=labels, class_names=tuple(self.class_names[label] for label in present))


__all__ = ["VectorSet"]
