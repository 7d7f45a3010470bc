"""What an index knows of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from idml_hf.confidence.collection import Collection
from idml_hf.data import ImageSet
from idml_hf.embedding import Embeddings
from idml_hf.index_files import IndexFileError

from .thumbnails import Thumbnails


@dataclass(frozen=True, eq=False)
class Gallery:
    """N embedded images. Made by `Gallery.create`, which checks and normalises.

    Args:
        semantic: float32 (N, d), unit norm.
        uncertainty_embeds: float32 (N, d_u).
        ids: int64 (N,), different from each other, kept for life.
        labels: int64 (N,), -1 where the class is unknown.
        class_names: name of each label; empty if labels are plain numbers.
        paths: string array (N,): file of each image, or its name in its source; empty where there is none.
        thumbnails: small copies of the images, or None.
    """

    semantic: np.ndarray
    uncertainty_embeds: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    paths: pa.StringArray
    thumbnails: Thumbnails | None = None

    @classmethod
    def create(
        cls,
        semantic: Any,
        uncertainty_embeds: Any = None,
        *,
        ids: Any = None,
        labels: Any = None,
        class_names: Sequence[str] = (),
        paths: Sequence[str] | pa.StringArray | None = None,
        thumbnails: Thumbnails | None = None,
        first_id: int = 0,
    ) -> Gallery:
        """Check the columns, fill in what is missing, and normalise the semantic embeddings.

        Raises:
            ValueError: naming the column that does not fit.
        """
        semantic = unit_rows(semantic, "semantic embeddings")
        number = len(semantic)
        if uncertainty_embeds is None:
            uncertainty_embeds = np.zeros((number, 1), dtype=np.float32)
        ids = np.arange(first_id, first_id + number) if ids is None else np.asarray(ids)
        labels = np.full(number, -1) if labels is None else np.asarray(labels)
        for name, column in (("ids", ids), ("labels", labels)):
            if column.shape != (number,) or not np.issubdtype(column.dtype, np.integer):
                raise ValueError(f"{name} must be {number} integers, one an embedding; got {column.shape}")
        if len(np.unique(ids)) < number or (number and ids.min() < 0):
            raise ValueError("ids must be different from each other, and not negative")
        if len(class_names) and number and not -1 <= labels.min() <= labels.max() < len(class_names):
            raise ValueError(f"labels must be -1 to {len(class_names) - 1}: there are {len(class_names)} class names")
        if paths is None:
            paths = pa.repeat("", number)
        if not isinstance(paths, pa.Array):
            paths = pa.array([str(path) for path in paths], type=pa.string())
        for name, length in (("paths", len(paths)), ("thumbnails", number if thumbnails is None else len(thumbnails))):
            if length != number:
                raise ValueError(f"{length} {name} for {number} embeddings")
        return cls(
            semantic,
            finite_rows(uncertainty_embeds, "uncertainty embeddings", number),
            ids.astype(np.int64),
            labels.astype(np.int64),
            tuple(class_names),
            paths,
            thumbnails,
        )

    @classmethod
    def of_images(
        cls, images: ImageSet | Sequence[Any], embeddings: Embeddings, thumbnail_size: int | None, first_id: int = 0
    ) -> Gallery:
        """The gallery of images and their embeddings; `thumbnail_size` None keeps no small copies."""
        columns: dict[str, Any] = {}
        if isinstance(images, ImageSet):
            columns = {"labels": images.labels, "class_names": images.class_names, "paths": images.ids}
        return cls.create(
            embeddings.semantic,
            embeddings.uncertainty_embeds,
            **columns,
            thumbnails=None if thumbnail_size is None else Thumbnails.of(images, thumbnail_size),
            first_id=first_id,
        )

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray], items: pa.Table, class_names: Sequence[str]) -> Gallery:
        """The gallery of `arrays()` and `table()`.

        Raises:
            IndexFileError: if they contradict each other.
        """
        items = items.combine_chunks()
        thumbnails = None
        if "thumbnails" in arrays:
            thumbnails = Thumbnails(arrays["thumbnails"], arrays["thumbnail_offsets"])
        paths = pa.concat_arrays(items["path"].chunks or [pa.array([], pa.string())])
        labels = items["label"].to_numpy()
        lengths = {len(arrays["semantic"]), len(arrays["uncertainty"]), len(items)}
        if len(lengths | ({len(thumbnails)} if thumbnails else set())) > 1:
            raise IndexFileError(f"the columns of the index have different lengths: {sorted(lengths)}")
        if class_names and len(labels) and labels.max() >= len(class_names):
            raise IndexFileError(f"the index has label {labels.max()}, but {len(class_names)} class names")
        ids = items["id"].to_numpy()
        return cls(arrays["semantic"], arrays["uncertainty"], ids, labels, tuple(class_names), paths, thumbnails)

    @cached_property
    def collection(self) -> Collection:
        """What the confidence of a search knows of these images."""
        return Collection(self.semantic, np.linalg.norm(self.uncertainty_embeds, axis=1), self.labels)

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns worth mapping from files."""
        arrays = {"semantic": self.semantic, "uncertainty": self.uncertainty_embeds}
        if self.thumbnails is not None:
            arrays |= {"thumbnails": self.thumbnails.content, "thumbnail_offsets": self.thumbnails.offsets}
        return arrays

    def table(self) -> pa.Table:
        """The columns worth reading at once."""
        return pa.table({"id": self.ids, "label": self.labels, "path": self.paths})

    def __len__(self) -> int:
        return len(self.semantic)

    def name_of(self, label: int) -> str:
        """Name of a label; its number where there are no names, nothing for -1."""
        if label < 0:
            return ""
        return self.class_names[label] if self.class_names else str(label)

    def positions(self, ids: Any) -> np.ndarray:
        """Row of each id.

        Raises:
            KeyError: for an id that is not there.
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        order = np.argsort(self.ids, kind="stable")
        at = np.searchsorted(self.ids[order], ids).clip(max=max(len(self) - 1, 0))
        found = order[at] if len(self) else at
        unknown = ids[self.ids[found] != ids] if len(self) else ids
        if len(unknown):
            raise KeyError(f"the index has no image with id {unknown[0]}")
        return found

    def select(self, indices: np.ndarray) -> Gallery:
        """The images at `indices` (integers)."""
        return replace(
            self,
            semantic=self.semantic[indices],
            uncertainty_embeds=self.uncertainty_embeds[indices],
            ids=self.ids[indices],
            labels=self.labels[indices],
            paths=self.paths.take(pa.array(indices)),
            thumbnails=None if self.thumbnails is None else self.thumbnails.select(indices),
        )

    def concatenate(self, other: Gallery) -> Gallery:
        """These images, then those of `other`; its classes are matched by name.

        Raises:
            ValueError: if the embeddings differ in size, an id is in both, or only one names its classes.
        """
        for name in ("semantic", "uncertainty_embeds"):
            mine, others = getattr(self, name), getattr(other, name)
            if mine.shape[1] != others.shape[1]:
                raise ValueError(f"{name} have {others.shape[1]} dimensions, those of the index {mine.shape[1]}")
        if len(np.intersect1d(self.ids, other.ids)):
            raise ValueError(f"id {np.intersect1d(self.ids, other.ids)[0]} is in the index already")
        class_names, labels = self._join_classes(other)
        thumbnails = None
        if self.thumbnails is not None and other.thumbnails is not None:
            thumbnails = self.thumbnails.concatenate(other.thumbnails)
        return replace(
            self,
            semantic=np.concatenate([self.semantic, other.semantic]),
            uncertainty_embeds=np.concatenate([self.uncertainty_embeds, other.uncertainty_embeds]),
            ids=np.concatenate([self.ids, other.ids]),
            labels=np.concatenate([self.labels, labels]),
            class_names=class_names,
            paths=pa.concat_arrays([self.paths, other.paths]),
            thumbnails=thumbnails,
        )

    def _join_classes(self, other: Gallery) -> tuple[tuple[str, ...], np.ndarray]:
        if not other.class_names and (not self.class_names or (other.labels < 0).all()):
            return self.class_names, other.labels
        if not self.class_names and (self.labels >= 0).any():
            raise ValueError("the classes of the index have no names, but those of the new images do (or vice versa)")
        if not other.class_names:
            raise ValueError("the classes of the new images need names: those of the index have some")
        number = {name: label for label, name in enumerate(self.class_names)}
        renumbered = np.array([number.setdefault(name, len(number)) for name in other.class_names], dtype=np.int64)
        return tuple(number), np.where(other.labels < 0, -1, renumbered[other.labels])


def finite_rows(values: Any, name: str, number: int | None = None) -> np.ndarray:
    """`values` as a finite float32 matrix, not copied if it is one.

    Raises:
        ValueError: naming the first row at fault.
    """
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or (number is not None and len(matrix) != number):
        raise ValueError(
            f"{name} must be a matrix{'' if number is None else f' of {number} rows'}; got {matrix.shape}"
        )
    matrix = np.ascontiguousarray(matrix, dtype=np.float32)
    for start in range(0, len(matrix), 2**14):
        bad = ~np.isfinite(matrix[start : start + 2**14]).all(1)
        if bad.any():
            raise ValueError(f"{name} have NaN or infinite values, first in row {start + int(bad.argmax())}")
    return matrix


def unit_rows(values: Any, name: str) -> np.ndarray:
    """`values` as float32 matrix of unit rows, not copied if it is one.

    Raises:
        ValueError: naming the first row that is not finite or has no direction.
    """
    matrix = finite_rows(values, name)
    norms = np.sqrt(np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64))
    if (norms == 0).any():
        raise ValueError(f"{name} have no direction in row {int((norms == 0).argmax())}: it is all zeros")
    if np.abs(norms - 1).max(initial=0) > 1e-6:
        matrix = (matrix / norms[:, None]).astype(np.float32)
    return matrix


__all__ = ["Gallery", "finite_rows", "unit_rows"]
