"""`check_dataset`: is this the data set it should be, whole and clean?"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from idml_hf.image_sheet import Cell, sheet

from .dataset_spec import wrong_counts
from .decoding import UnreadableImageError
from .image_set import UNLABELLED, ImageSet
from .sources import open_source
from .splits import named_splits, retrieval_splits
from .unreadable_images import SHOWN, BadImage, map_images


@dataclass(frozen=True)
class SplitReport:
    """Numbers on one split; class sizes are in images, of the classes that have any."""

    images: int
    classes: int
    smallest_class: int
    largest_class: int
    classes_with_one_image: int


@dataclass(frozen=True)
class DatasetReport:
    """What `check_dataset` found.

    Args:
        name: name or path of the data set.
        splits: split -> its numbers.
        problems: a line for each number that is not what the registry states.
        unreadable: images that cannot be decoded.
        duplicates: pairs (image in train, image in test) with the same pixels, each named by its id.
        two_classes: pairs of images of one split with the same pixels and different classes.
        contact_sheet: some images of some classes, for the eye.
    """

    name: str
    splits: Mapping[str, SplitReport]
    problems: list[str]
    unreadable: list[BadImage]
    duplicates: list[tuple[str, str]]
    two_classes: list[tuple[str, str]]
    contact_sheet: PIL.Image.Image = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing was found to be wrong."""
        return not (self.problems or self.unreadable or self.duplicates or self.two_classes)

    def to_dict(self) -> dict[str, Any]:
        """All but the contact sheet, ready for JSON."""
        return {
            "dataset": self.name,
            "ok": self.ok,
            "splits": {split: asdict(numbers) for split, numbers in self.splits.items()},
            "problems": self.problems,
            "unreadable": [{"image": image.id, "reason": image.reason} for image in self.unreadable],
            "duplicates": [list(pair) for pair in self.duplicates],
            "two_classes": [list(pair) for pair in self.two_classes],
        }

    def describe(self) -> str:
        """Lines for people; of long lists the first 20."""
        lines = [self.name]
        for split, numbers in self.splits.items():
            lines.append(
                f"  {split}: {numbers.images} images of {numbers.classes} classes, {numbers.smallest_class} to "
                f"{numbers.largest_class} images a class, {numbers.classes_with_one_image} classes with one image"
            )
        lines += [f"  wrong: {problem}" for problem in self.problems]
        lines += _section("unreadable images", [f"{image.id} {image.reason}" for image in self.unreadable])
        lines += _section("images both in train and test", [f"{train} = {test}" for train, test in self.duplicates])
        lines += _section("pictures in two classes", [f"{first} = {second}" for first, second in self.two_classes])
        return "\n".join([*lines, "  all is well" if self.ok else "  NOT as it should be"])


def check_dataset(
    name_or_path: str | Path, root: str | Path | None = None, *, progress: bool | None = None, **columns: Any
) -> DatasetReport:
    """Read every image of a data set, and compare numbers with the registry.

    Args:
        name_or_path, root: as for `load_retrieval_data`.
        progress: show a progress bar; default: for more than 5000 images.
        **columns: `image_column`, `label_column`, `group_column` and `revision` of `load_retrieval_data`.

    Raises:
        FileNotFoundError, ValueError: if the data set cannot be read at all.

    Example:
        >>> report = check_dataset("emoji-mini")
        >>> report.ok, report.splits["train"].images
        (True, 2300)
    """
    source = open_source(name_or_path, root=root, **columns)
    if source.spec is not None and source.spec.task == "classification":
        splits = named_splits(source)
    else:
        train, validation, test = retrieval_splits(source)
        splits = (
            {"train": train, "validation": validation, "test": test} if validation else {"train": train, "test": test}
        )
    problems = [] if source.spec is None else wrong_counts(source.spec, splits)
    unreadable: list[BadImage] = []
    two_classes: list[tuple[str, str]] = []
    digests: dict[str, dict[bytes, int]] = {}
    for split, images in splits.items():
        found = map_images(images, functools.partial(_digest, images), f"Reading {split}", progress)
        digests[split] = {}
        for i, value in enumerate(found):
            if isinstance(value, bytes):
                first = digests[split].setdefault(value, i)
                if images.labels[first] != images.labels[i]:
                    two_classes.append((_named(images, first), _named(images, i)))
        unreadable += [
            BadImage(i, images.image_id(i), value) for i, value in enumerate(found) if isinstance(value, str)
        ]
    shared = digests["train"].keys() & digests["test"].keys()
    pairs = sorted((digests["train"][key], digests["test"][key]) for key in shared)
    duplicates = [(splits["train"].image_id(i), splits["test"].image_id(j)) for i, j in pairs]
    numbers = {split: _numbers(images) for split, images in splits.items()}
    return DatasetReport(source.name, numbers, problems, unreadable, duplicates, two_classes, _contact_sheet(splits))


def _digest(images: ImageSet, index: int) -> bytes | str:
    """A hash of the pixels and the size, or why the image cannot be read."""
    try:
        pixels = images.tensor(index)
    except UnreadableImageError as error:
        return str(error).removeprefix(images.image_id(index)).strip()
    shape = ",".join(map(str, pixels.shape)).encode()
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16, salt=shape[:16]).digest()


def _named(images: ImageSet, index: int) -> str:
    label = images.labels[index]
    return f"{images.image_id(index)} ({images.class_names[label] if label != UNLABELLED else 'no class'})"


def _numbers(images: ImageSet) -> SplitReport:
    counts = np.bincount(images.labels[images.labels != UNLABELLED], minlength=1)
    counts = counts[counts > 0]
    return SplitReport(
        images=len(images),
        classes=len(counts),
        smallest_class=int(counts.min(initial=len(images))),
        largest_class=int(counts.max(initial=0)),
        classes_with_one_image=int((counts == 1).sum()),
    )


def _contact_sheet(splits: Mapping[str, ImageSet], classes: int = 6, images_per_class: int = 8) -> PIL.Image.Image:
    """A row for each of some classes, evenly spread over each split; images that cannot be read are left blank."""
    rows, titles = [], []
    for split, images in splits.items():
        present = np.unique(images.labels)
        for label in present[np.unique(np.linspace(0, len(present) - 1, min(classes, len(present))).astype(int))]:
            chosen = np.flatnonzero(images.labels == label)[:images_per_class]
            rows.append([_cell(images, int(index)) for index in chosen])
            titles.append(f"{split} {images.class_names[label] if label != UNLABELLED else ''}")
    return sheet(rows, titles=titles)


def _cell(images: ImageSet, index: int) -> Cell:
    try:
        return Cell(images.image(index))
    except UnreadableImageError:
        return Cell(None)


def _section(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = [f"    ... and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return [f"  {len(entries)} {title}:", *(f"    {entry}" for entry in entries[:SHOWN]), *more]
