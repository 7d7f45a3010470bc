"""`ImageSet`: labelled images, read one at a time, whatever they are stored in."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import torch

from .annotation_files import file_below
from .decoding import UnreadableImageError, decode_pil, decode_tensor, encode_pixels, path_text, read_bytes, read_file

UNLABELLED = -1
IMAGE_FEATURES = datasets.Features({"image": datasets.Image(decode=False)})
ANYWHERE = Path(os.sep)
"""Folder of files that may lie anywhere: the user, or our own listing, has named each."""


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
        folders: where the files may lie that `storage` names instead of holding an image's bytes; None: nowhere.
        folder_of: integers (N,), which of `folders` holds for each image.
        extra: data set of N rows with what else the source says of each image, in columns of numbers, texts and truth
            values; None for nothing.
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
    folders: tuple[Path | None, ...] = field(default=(ANYWHERE,), repr=False)
    folder_of: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32), repr=False)
    extra: datasets.Dataset | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.folder_of) != len(self.labels):
            object.__setattr__(self, "folder_of", np.zeros(len(self.labels), dtype=np.int32))

    @classmethod
    def from_files(cls, paths: Sequence[str | Path], labels: Any, class_names: Sequence[str]) -> ImageSet:
        """Images in files, which are opened only when an image is asked for.

        Args:
            paths: one path an image.
            labels: integers (N,), numbers of `class_names` or -1.
            class_names: name of each class.
        """
        ids = [path_text(path) for path in paths]
        return cls.from_encoded([None] * len(ids), ids, labels, class_names, ids=ids, in_files=True)

    @classmethod
    def from_column(
        cls,
        column: datasets.Dataset,
        labels: Any,
        class_names: Sequence[str],
        source: str,
        original_labels: Any = None,
        folder: Path | None = None,
    ) -> ImageSet:
        """Images inside a data set, e.g. of parquet files.

        Args:
            column: data set whose only column `image` is a `datasets.Image`; it may be a view, shuffled or selected,
                and of any format.
            labels: integers (N,), numbers of `class_names` or -1.
            class_names: name of each class.
            source: what to call the data set in the ids of images without a file name.
            original_labels: integers (N,); default: `labels`.
            folder: where the files may lie that a row names instead of holding the image; None: nowhere, since a table
                from elsewhere could name any file of this machine.
        """
        storage = column.with_format(None).cast_column("image", datasets.Image(decode=False))
        stated = storage.flatten().select_columns("image.path").with_format("arrow")[:].column(0).to_pylist()
        ids = pa.array([path or f"{source} row {row}" for row, path in enumerate(stated)], type=pa.string())
        labels = _class_numbers(labels, len(ids), class_names)
        original = labels if original_labels is None else np.asarray(original_labels, dtype=np.int64)
        return cls(storage, ids, False, labels, tuple(class_names), original, folders=(folder,))

    @classmethod
    def from_arrays(cls, pixels: np.ndarray, labels: Any, class_names: Sequence[str], source: str) -> ImageSet:
        """Small images in memory.

        Args:
            pixels: uint8 (N, H, W) grey or (N, H, W, 3) colour.
            labels: integers (N,), numbers of `class_names` or -1.
            class_names: name of each class.
            source: what to call the data set in the ids of the images.
        """
        files = [encode_pixels(image) for image in pixels]
        ids = [f"{source} row {row}" for row in range(len(pixels))]
        return cls.from_encoded(files, [None] * len(files), labels, class_names, ids=ids)

    @classmethod
    def from_encoded(
        cls,
        files: Sequence[bytes | None],
        paths: Sequence[str | None],
        labels: Any,
        class_names: Sequence[str],
        *,
        ids: Sequence[str],
        in_files: bool = False,
    ) -> ImageSet:
        """Images that are encoded in memory, or in files.

        Args:
            files: the encoded images, or None for each that is in a file.
            paths: path of each image that is in a file.
            labels: integers (N,), numbers of `class_names` or -1.
            class_names: name of each class.
            ids: what to call each image.
            in_files: whether all are in files.
        """
        # Arrow keeps at most 2 GiB in one piece
        piece = np.cumsum([len(file or b"") for file in files], dtype=np.int64) // 2**30
        cuts = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(files)]
        pieces = [
            pa.StructArray.from_arrays(
                [pa.array(files[start:end], pa.binary()), pa.array(paths[start:end], pa.string())], ["bytes", "path"]
            )
            for start, end in itertools.pairwise(cuts)
        ]
        table = pa.table({"image": pa.chunked_array(pieces)}).cast(IMAGE_FEATURES.arrow_schema)
        labels = _class_numbers(labels, len(files), class_names)
        names = pa.array(ids, type=pa.string())
        return cls(datasets.Dataset(table), names, in_files, labels, tuple(class_names), original_labels=labels)

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
        value = self.storage[int(index)]["image"]
        folder = self.folders[self.folder_of[index]]
        if folder == ANYWHERE or value is None or value["bytes"] is not None or value["path"] is None:
            return read_bytes(value)
        return read_file(file_below(value["path"], folder))

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
        """The images at `indices` (integers, a slice, or a boolean mask of length N); labels and class names stay.

        Raises:
            IndexError: for other indices.
        """
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            indices = indices.astype(np.int64) if indices.size == 0 and indices.dtype != bool else indices
        indices = np.arange(len(self))[indices]
        return replace(
            self,
            storage=self.storage.select(indices),
            ids=self.ids.take(pa.array(indices)),
            labels=self.labels[indices],
            original_labels=self.original_labels[indices],
            groups=None if self.groups is None else self.groups[indices],
            folder_of=self.folder_of[indices],
            extra=None if self.extra is None else self.extra.select(indices),
        )

    def renumbered(self) -> ImageSet:
        """The same images with the classes that occur numbered 0, 1, ... in their old order, and no other class.

        `original_labels` stay.
        """
        present = np.unique(self.labels[self.labels != UNLABELLED])
        labels = np.where(self.labels == UNLABELLED, UNLABELLED, np.searchsorted(present, self.labels))
        return replace(self, labels=labels, class_names=tuple(self.class_names[label] for label in present))

    def with_labels(self, labels: Any, class_names: Sequence[str]) -> ImageSet:
        """The same images with other labels: integers (N,), numbers of `class_names` or -1."""
        labels = _class_numbers(labels, len(self), class_names)
        return replace(self, labels=labels, class_names=tuple(class_names), original_labels=labels)

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
    """Two sets, one after the other; classes and groups of the same name become one.

    The classes of the first keep their numbers; a class of the second becomes the first one of its name there.
    """
    number = {name: label for label, name in reversed(list(enumerate(first.class_names)))}
    added = [name for name in second.class_names if name not in number]
    new = iter(range(first.num_classes, first.num_classes + len(added)))
    new_label = [number[name] if name in number else next(new) for name in second.class_names]
    both = replace(
        first,
        storage=datasets.concatenate_datasets([first.storage, second.storage]),
        ids=pa.concat_arrays([first.ids, second.ids]),
        in_files=first.in_files and second.in_files,
        labels=np.concatenate([first.labels, np.array([*new_label, UNLABELLED], dtype=np.int64)[second.labels]]),
        class_names=(*first.class_names, *added),
        original_labels=np.concatenate([first.original_labels, second.original_labels]),
        groups=None,
        group_names=(),
        group_column=None,
        folders=(*first.folders, *second.folders),
        folder_of=np.concatenate([first.folder_of, second.folder_of + len(first.folders)]),
        extra=_joined_extra(first, second),
    )
    if first.groups is None or second.groups is None or first.group_column is None:
        return both
    values = [first.group_names[g] for g in first.groups] + [second.group_names[g] for g in second.groups]
    return both.grouped(values, first.group_column)


def _joined_extra(first: ImageSet, second: ImageSet) -> datasets.Dataset | None:
    """What is known of the images of both, in the columns that both have of one type."""
    if first.extra is None or second.extra is None:
        return None
    kinds = second.extra.features
    names = [name for name, feature in first.extra.features.items() if kinds.get(name) == feature]
    if not names:
        return None
    return datasets.concatenate_datasets([side.select_columns(names) for side in (first.extra, second.extra)])


def _class_numbers(labels: Any, count: int, class_names: Sequence[str]) -> np.ndarray:
    """`labels` as int64 (N,), each -1 or the number of a class name."""
    given = np.asarray(labels)
    if given.size == 0:
        given = given.astype(np.int64)
    if given.shape != (count,) or given.dtype.kind not in "iu":
        raise ValueError(f"labels must be {count} integers, one an image, not {given.dtype} {given.shape}")
    if given.size and not (int(given.min()) >= -1 and int(given.max()) < len(class_names)):
        raise ValueError(
            f"labels must be -1, or the number of one of the {len(class_names)} class names, not {given.min()} to "
            f"{given.max()}"
        )
    return given.astype(np.int64)
