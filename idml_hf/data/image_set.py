"""`ImageSet`: labelled images, read one at a time, whatever they are stored in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import torch

from .decoding import UnreadableImageError, decode_pil, decode_tensor, read_bytes

UNLABELLED = -1
IMAGE_FEATURES = datasets.Features({"image": datasets.Image(decode=False)})


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with a class each, and optionally a group each (artist, camera, product line, ...).

    Labels, groups and ids are arrays: looking at them reads no image. `images[i]` gives image i in RGB, upright, as
    `PIL.Image.Image`; `len` and iteration work as on a list. Made by `from_files`, `from_column`
    or `from_arrays`.

    Args:
        storage: data set whose column `image` is a `datasets.Image(decode=False)`.
        ids: string array (N,): the path of each image, or its name in its source.
        in_files: whether `ids` are paths of files on this machine.
        labels: int64 (N,), numbers in 0..num_classes-1, or -1 where the class is unknown.
        class_names: name of each label.
        original_labels: int64 (N,), the labels as the source numbers them.
        groups: int64 (N,), group of each image, or None.
        group_names: name of each group number.
        group_column: what the groups stand for, or None.
    """

    storage: datasets.Dataset = field(repr=False)
    ids: pa.Array = field(repr=False)
    in_files: bool
    labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    original_labels: np.ndarray = field(repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)
    group_names: tuple[str, ...] = field(default=(), repr=False)
    group_column: str | None = None

    @classmethod
    def from_files(cls, paths: Sequence[str | Path], labels: Any, class_names: Sequence[str]) -> ImageSet:
        """Images in files, which are opened only when an image is asked for.

        Args:
            paths: one path an image.
            labels: integers (N,), numbers of `class_names` or -1.
            class_names: name of each class.
        """
        ids = pa.array([str(path) for path in paths], type=pa.string())
        column = pa.StructArray.from_arrays([pa.nulls(len(ids), pa.binary()), ids], names=["bytes", "path"])
        storage = datasets.Dataset(pa.table({"image": column}).cast(IMAGE_FEATURES.arrow_schema))
        labels = np.asarray(labels, dtype=np.int64)
        return cls(storage, ids, True, labels, tuple(class_names), original_labels=labels)

    @classmethod
    def from_column(
        cls,
        column: datasets.Dataset,
        labels: Any,
        class_names: Sequence[str],
        source: str,
        original_labels: Any = None,
    ) -> ImageSet:
        """Images inside a data set, e.g. of parquet files.

        Args:
            column: data set whose only column `image` is a `datasets.Image`.
            labels: integers (N,), numbers of `class_names` or -1.
            class_names: name of each class.
            source: what to call the data set in the ids of images without a file name.
            original_labels: integers (N,); default: `labels`.
        """
        storage = column.cast_column("image", datasets.Image(decode=False))
        chunks = storage.data.column("image").chunks
        stated = [path for chunk in chunks for path in chunk.field("path").to_pylist()]
        ids = [path or f"{source} row {row}" for row, path in enumerate(stated)]
        labels = np.asarray(labels, dtype=np.int64)
        original = labels if original_labels is None else np.asarray(original_labels, dtype=np.int64)
        return cls(storage, pa.array(ids, type=pa.string()), False, labels, tuple(class_names), original)

    @classmethod
    def from_arrays(cls, pixels: np.ndarray, labels: Any, class_names: Sequence[str], source: str) -> ImageSet:
        """Small images in memory.

        Args:
            pixels: uint8 (N, H, W) grey or (N, H, W, 3) colour.
            labels: integers (N,), numbers of `class_names` or -1.
            class_names: name of each class.
            source: what to call the data set in the ids of the images.
        """
        height, width = pixels.shape[1:3]
        header = b"%s %d %d 255\n" % (
            b"P5" if pixels.ndim == 3 else b"P6",
            width,
            height,
        )  # netpbm: a header and the pixels
        files = pa.array([header + np.ascontiguousarray(image).tobytes() for image in pixels], type=pa.binary())
        ids = pa.array([f"{source} row {row}" for row in range(len(pixels))], type=pa.string())
        column = pa.StructArray.from_arrays([files, pa.nulls(len(files), pa.string())], names=["bytes", "path"])
        storage = datasets.Dataset(pa.table({"image": column}).cast(IMAGE_FEATURES.arrow_schema))
        labels = np.asarray(labels, dtype=np.int64)
        return cls(storage, ids, False, labels, tuple(class_names), original_labels=labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        return self.image(index)

    def __iter__(self) -> Iterator[PIL.Image.Image]:
        return (self.image(index) for index in range(len(self)))

    @property
    def num_classes(self) -> int:
        """Number of class names; 0 if the images have no classes."""
        return len(self.class_names)

    @property
    def paths(self) -> list[str] | None:
        """Path of each image, or None if the images are not files of their own."""
        return self.ids.to_pylist() if self.in_files else None

    def image_id(self, index: int) -> str:
        """Path of the image's file, or its name in its source."""
        return self.ids[int(index)].as_py()

    def file_bytes(self, index: int) -> bytes:
        """The encoded image `index` (JPEG, PNG, ...).

        Raises:
            UnreadableImageError: if its file cannot be read.
        """
        return read_bytes(self.storage[int(index)]["image"])

    def image(self, index: int) -> PIL.Image.Image:
        """Image `index` in RGB, upright.

        Raises:
            UnreadableImageError: naming the image, if it cannot be decoded.
        """
        try:
            return decode_pil(self.file_bytes(index))
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{self.image_id(index)} {error}") from error

    def tensor(self, index: int) -> torch.Tensor:
        """Image `index` in RGB, upright, as uint8 tensor (3, H, W): the fast way to the same pixels.

        Raises:
            UnreadableImageError: naming the image, if it cannot be decoded.
        """
        try:
            return decode_tensor(self.file_bytes(index))
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{self.image_id(index)} {error}") from error

    def select(self, indices: Any) -> ImageSet:
        """The images at `indices` (integers, or a boolean mask of length N); labels and class names stay."""
        indices = np.asarray(indices)
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        return replace(
            self,
            storage=self.storage.select(indices),
            ids=self.ids.take(pa.array(indices)),
            labels=self.labels[indices],
            original_labels=self.original_labels[indices],
            groups=None if self.groups is None else self.groups[indices],
        )

    def renumbered(self) -> ImageSet:
        """The same images with the classes that occur numbered 0, 1, ... in their old order, and no other class.

        `original_labels` stay.
        """
        present = np.unique(self.labels[self.labels != UNLABELLED])
        labels = np.where(self.labels == UNLABELLED, UNLABELLED, np.searchsorted(present, self.labels))
        return replace(self, labels=labels, class_names=tuple(self.class_names[label] for label in present))

    def grouped(self, values: Sequence[Any], column: str) -> ImageSet:
        """The same images with groups: equal `values` (N,) are one group, called by its value."""
        names, groups = np.unique(np.asarray([str(value) for value in values]), return_inverse=True)
        return replace(self, groups=groups.astype(np.int64), group_names=tuple(names.tolist()), group_column=column)

    def to_dataset(self) -> datasets.Dataset:
        """A `datasets.Dataset` with `image` (decoded when read), `label`, and `group` if there are groups."""
        dataset = self.storage.add_column("label", self.labels)
        dataset = dataset.cast_column("image", datasets.Image())
        if self.num_classes:
            dataset = dataset.cast_column("label", datasets.ClassLabel(names=list(self.class_names)))
        return dataset if self.groups is None else dataset.add_column("group", self.groups)


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Two sets, one after the other; classes and groups of the same name become one."""
    names = tuple(dict.fromkeys([*first.class_names, *second.class_names]))
    number = {name: label for label, name in enumerate(names)}
    new_label = np.array([*(number[name] for name in second.class_names), UNLABELLED], dtype=np.int64)
    both = replace(
        first,
        storage=datasets.concatenate_datasets([first.storage, second.storage]),
        ids=pa.concat_arrays([first.ids, second.ids]),
        in_files=first.in_files and second.in_files,
        labels=np.concatenate([first.labels, new_label[second.labels]]),
        class_names=names,
        original_labels=np.concatenate([first.original_labels, second.original_labels]),
        groups=None,
        group_names=(),
        group_column=None,
    )
    if first.groups is None or second.groups is None or first.group_column is None:
        return both
    values = [first.group_names[g] for g in first.groups] + [second.group_names[g] for g in second.groups]
    return both.grouped(values, first.group_column)
