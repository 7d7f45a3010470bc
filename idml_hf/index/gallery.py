"""What an index knows of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from idml_hf.data import ImageSet, VectorSet
from idml_hf.embedding import Embeddings
from idml_hf.search.arrays import as_integers, finite_rows, unit_rows

from .classes import different_names, join_classes
from .metadata import as_columns, joined
from .thumbnails import Thumbnails

_METADATA = "metadata."  # before the names of such columns, which may be any


@dataclass(frozen=True, eq=False)
class Gallery:
    """N embedded images. Made by `Gallery.create`, which checks and normalises.

    Args:
        semantic: float32 (N, d), unit norm.
        uncertainty_embeds: float32 (N, d_u).
        uncertainty: float32 (N,), norm of each uncertainty embedding.
        ids: int64 (N,), different from each other, kept for life.
        labels: int64 (N,), -1 where the class is unknown.
        class_names: name of each label, all different; empty if labels are plain numbers.
        paths: string array (N,): file of each image, or its name in its source; empty where there is none.
        thumbnails: small copies of the images, or None.
        metadata: further columns of N values by name, see [`~idml_hf.index.metadata.as_columns`].
    """

    semantic: np.ndarray
    uncertainty_embeds: np.ndarray
    uncertainty: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    paths: pa.StringArray
    thumbnails: Thumbnails | None = None
    metadata: Mapping[str, pa.Array] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        semantic: Any,
        uncertainty_embeds: Any = None,
        *,
        ids: Any = None,
        labels: Any = None,
        class_names: Sequence[str] = (),
        paths: Sequence[str | Path] | pa.StringArray | None = None,
        thumbnails: Thumbnails | None = None,
        metadata: Mapping[str, Any] | None = None,
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
        uncertainty_embeds = finite_rows(uncertainty_embeds, "uncertainty embeddings", number)
        ids = np.arange(first_id, first_id + number) if ids is None else as_integers(ids, "ids", number)
        labels = np.full(number, -1) if labels is None else as_integers(labels, "labels", number)
        if len(np.unique(ids)) < number or (number and ids.min() < 0):
            raise ValueError("ids must be different from each other, and not negative")
        names = tuple(str(name) for name in class_names)
        if len(set(names)) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise ValueError(f"class names must be different from each other: {twice!r} is there twice")
        if names and number and not -1 <= labels.min() <= labels.max() < len(names):
            raise ValueError(f"labels must be -1 to {len(names) - 1}: there are {len(names)} class names")
        if paths is None:
            paths = pa.repeat("", number)
        if not isinstance(paths, (pa.Array, pa.ChunkedArray)):
            paths = pa.array([str(path) for path in paths], type=pa.string())
        for name, length in (("paths", len(paths)), ("thumbnails", number if thumbnails is None else len(thumbnails))):
            if length != number:
                raise ValueError(f"{length} {name} for {number} embeddings")
        return cls(
            semantic,
            uncertainty_embeds,
            _norms(uncertainty_embeds),
            ids.astype(np.int64),
            labels.astype(np.int64),
            names,
            _texts(paths),
            thumbnails,
            as_columns(metadata, number),
        )

    @classmethod
    def of_images(
        cls,
        images: ImageSet | VectorSet | Sequence[Any],
        embeddings: Embeddings,
        thumbnail_size: int | None,
        first_id: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Gallery:
        """The gallery of images and their embeddings; `thumbnail_size` None keeps no small copies."""
        columns: dict[str, Any] = {}
        thumbnails = None
        if thumbnail_size is not None and not isinstance(images, VectorSet):
            thumbnails = Thumbnails.of(images, thumbnail_size)
        if isinstance(images, (ImageSet, VectorSet)):
            columns = {"labels": images.labels, "class_names": images.class_names, "paths": images.ids}
        return cls.create(
            embeddings.semantic,
            embeddings.uncertainty_embeds,
            **columns,
            thumbnails=thumbnails,
            metadata=metadata,
            first_id=first_id,
        )

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], items: pa.Table, class_names: Sequence[str]) -> Gallery:
        """The gallery of `arrays()` and `table()`.

        Raises:
            ValueError: if they contradict each other, or are none of an index.
        """
        semantic, embeds = (_stored(arrays, name, np.float32, 2) for name in ("semantic", "uncertainty"))
        # the first format has no norms
        norms = _stored(arrays, "uncertainty_norm", np.float32, 1) if "uncertainty_norm" in arrays else _norms(embeds)
        for name, kind in (("id", pa.int64()), ("label", pa.int64()), ("path", pa.string())):
            if name not in items.column_names or items[name].type != kind or items[name].null_count:
                raise ValueError(f"the items have no column {name!r} of {kind}")
        items = items.combine_chunks()
        thumbnails = None
        if "thumbnails" in arrays:
            content = _stored(arrays, "thumbnails", np.uint8, 1)
            offsets = _stored(arrays, "thumbnail_offsets", np.int64, 1)
            ends = (0, len(content))
            if not len(offsets) or (np.diff(offsets, prepend=ends[0], append=ends[1]) < 0).any():
                raise ValueError("the thumbnails overlap, or lie outside of their file")
            thumbnails = Thumbnails(content, offsets)
        lengths = {len(semantic), len(embeds), len(norms), len(items)} | ({len(thumbnails)} if thumbnails else set())
        if len(lengths) > 1:
            raise ValueError(f"the columns of the index have different lengths: {sorted(lengths)}")
        ids, labels = items["id"].to_numpy(), items["label"].to_numpy()
        names, labels = different_names(class_names, labels)
        if names and len(labels) and labels.max() >= len(names):
            raise ValueError(f"the index has label {labels.max()}, but {len(names)} class names")
        rising = not (np.diff(ids) <= 0).any()
        if len(ids) and (ids.min() < 0 or labels.min() < -1 or not (rising or len(np.unique(ids)) == len(ids))):
            raise ValueError("the index has an id twice, or an id or a label that is none")
        columns = {
            name.removeprefix(_METADATA): items[name].combine_chunks()
            for name in items.column_names
            if name.startswith(_METADATA)
        }
        return cls(
            semantic,
            embeds,
            norms,
            ids,
            labels,
            names,
            _texts(items["path"]),
            thumbnails,
            as_columns(columns, len(ids)),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns worth mapping from files."""
        arrays = {
            "semantic": self.semantic,
            "uncertainty": self.uncertainty_embeds,
            "uncertainty_norm": self.uncertainty,
        }
        if self.thumbnails is not None:
            arrays |= {"thumbnails": self.thumbnails.content, "thumbnail_offsets": self.thumbnails.offsets}
        return arrays

    def table(self) -> pa.Table:
        """The columns worth reading at once."""
        metadata = {_METADATA + name: column for name, column in self.metadata.items()}
        return pa.table({"id": self.ids, "label": self.labels, "path": self.paths, **metadata})

    def __len__(self) -> int:
        return len(self.semantic)

    @property
    def num_classes(self) -> int:
        """Number of classes that images of the gallery are of."""
        return len(np.unique(self.labels[self.labels >= 0]))

    def name_of(self, label: int) -> str:
        """Name of a label; its number where there are no names, nothing for -1."""
        if label < 0:
            return ""
        return self.class_names[label] if self.class_names else str(label)

    def names_of(self, labels: np.ndarray) -> np.ndarray:
        """Names of labels of any shape, as objects."""
        distinct, row = np.unique(labels, return_inverse=True)
        names = np.array([self.name_of(label) for label in distinct.tolist()], dtype=object)
        return names[row].reshape(labels.shape)

    def positions(self, ids: Any) -> np.ndarray:
        """Row of each id.

        Raises:
            KeyError: for an id that is not there.
            ValueError: for ids that are no integers.
        """
        ids = as_integers(ids, "ids")
        order = np.argsort(self.ids, kind="stable")
        at = np.searchsorted(self.ids[order], ids).clip(max=max(len(self) - 1, 0))
        found = order[at] if len(self) else at
        unknown = ids[self.ids[found] != ids] if len(self) else ids
        if len(unknown):
            raise KeyError(f"the index has no image with id {unknown[0]}")
        return found

    def select(self, indices: np.ndarray, thumbnails: bool = True) -> Gallery:
        """The images at `indices` (integers), with or without their small copies."""
        at = pa.array(indices, pa.int64())
        kept = None if self.thumbnails is None or not thumbnails else self.thumbnails.select(indices)
        return replace(
            self,
            semantic=self.semantic[indices],
            uncertainty_embeds=self.uncertainty_embeds[indices],
            uncertainty=self.uncertainty[indices],
            ids=self.ids[indices],
            labels=self.labels[indices],
            paths=self.paths.take(at),
            thumbnails=kept,
            metadata={name: column.take(at) for name, column in self.metadata.items()},
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
        class_names, labels = join_classes(
            self.class_names, bool((self.labels >= 0).any()), other.class_names, other.labels
        )
        thumbnails = None
        if self.thumbnails is not None and other.thumbnails is not None:
            thumbnails = self.thumbnails.concatenate(other.thumbnails)
        return Gallery(
            semantic=np.concatenate([self.semantic, other.semantic]),
            uncertainty_embeds=np.concatenate([self.uncertainty_embeds, other.uncertainty_embeds]),
            uncertainty=np.concatenate([self.uncertainty, other.uncertainty]),
            ids=np.concatenate([self.ids, other.ids]),
            labels=np.concatenate([self.labels, labels]),
            class_names=class_names,
            paths=pa.concat_arrays([_texts(self.paths), _texts(other.paths)]),
            thumbnails=thumbnails,
            metadata=joined(self.metadata, other.metadata, len(self), len(other)),
        )


def _stored(arrays: Mapping[str, np.ndarray], name: str, kind: Any, dimensions: int) -> np.ndarray:
    if name not in arrays or arrays[name].dtype != kind or arrays[name].ndim != dimensions:
        raise ValueError(f"the array {name!r} is none of an index")
    if dimensions == 2 and not arrays[name].shape[1]:
        raise ValueError(f"the array {name!r} has no columns")
    return arrays[name]


def _norms(embeds: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(embeds, axis=1)
        huge = ~np.isfinite(norms)
        norms[huge] = np.linalg.norm(embeds[huge].astype(np.float64), axis=1)
    return norms


def _texts(texts: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    if isinstance(texts, pa.ChunkedArray):
        texts = pa.concat_arrays(texts.chunks or [pa.array([], texts.type)])
    return pc.fill_null(texts.cast(pa.string()), "")


__all__ = ["Gallery"]
