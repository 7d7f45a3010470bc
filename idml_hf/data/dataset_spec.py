"""What is known of a data set: where it is, how it splits, what must come out, and under which terms."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .image_set import UNLABELLED, ImageSet


@dataclass(frozen=True)
class DataLicence:
    """The terms of a data set: what has to be said on the card of a model trained on it.

    Args:
        terms: its licences, in Markdown.
        model_licence: identifier of the licence that covers a model trained on it, where the terms suggest one.
        attribution_file: Markdown file whose list names its authors, where the licences ask for that.
    """

    terms: str
    model_licence: str | None = None
    attribution_file: Path | None = None

    @property
    def attribution(self) -> tuple[str, ...]:
        """Lines of Markdown that name the authors: the entries of the file's list that begin with a name in code."""
        if self.attribution_file is None:
            return ()
        text = self.attribution_file.read_text(encoding="utf-8")
        return tuple(re.findall(r"^- (`.*)$", text, flags=re.MULTILINE))


UNKNOWN_LICENCE = DataLicence(
    "The licence of the training data was not recorded. Whoever publishes this model should state it here."
)


@dataclass(frozen=True)
class DatasetSpec:
    """How to get a data set, how to split it, and what must come out.

    Args:
        name: name in the registry.
        title: name in words.
        task: `retrieval` (train and test have different classes) or `classification` (they have the same).
        hub_id: data set on the Hub, or None.
        revision: commit of `hub_id`, or None if none is known to be right.
        hub_files: split -> files on the Hub, where a repository holds more than the data set.
        image_column, label_column, class_name_column, group_column: columns on the Hub and in parquet files.
        num_train_classes: the first so many classes train, the others test; None: the splits are used as they come.
        first_test_class: name of the first class that tests, to tell a copy whose classes are in another order.
        expected: split -> (images, classes) after splitting; other numbers are an error.
        reader: reads the layout of the authors below a folder into split -> images.
        layout: what `reader` looks for, in words.
        system_folder: where a system package installs the layout, below the system's data folders (`XDG_DATA_DIRS`,
            such as `/usr/share`), or None.
        embedded: folder in this package with `train.parquet` and `test.parquet`, or None.
        licence: its terms.
    """

    name: str
    title: str
    expected: Mapping[str, tuple[int, int]]
    task: str = "retrieval"
    hub_id: str | None = None
    revision: str | None = None
    hub_files: Mapping[str, str] | None = None
    image_column: str | None = None
    label_column: str | None = None
    class_name_column: str | None = None
    group_column: str | None = None
    num_train_classes: int | None = None
    first_test_class: str | None = None
    reader: Callable[[Path], dict[str, ImageSet]] | None = None
    layout: str = "train.parquet and test.parquet"
    system_folder: str | None = None
    embedded: Path | None = None
    licence: DataLicence = UNKNOWN_LICENCE

    def installed(self) -> Path | None:
        """The folder where a system package has installed the data set, or None."""
        if self.system_folder is None:
            return None
        folders = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        found = (Path(folder) / self.system_folder for folder in folders.split(os.pathsep) if folder)
        return next((folder for folder in found if folder.is_dir()), None)


def count(images: ImageSet) -> tuple[int, int]:
    """Number of images, and of classes that have an image."""
    return len(images), len(np.unique(images.labels[images.labels != UNLABELLED]))


def wrong_counts(spec: DatasetSpec, splits: Mapping[str, ImageSet]) -> list[str]:
    """A line for each split whose images, classes or order of classes are not those of the registry."""
    problems = []
    for split, expected in spec.expected.items():
        found = count(splits[split]) if split in splits else (0, 0)
        if found != expected:
            problems.append(
                f"{spec.name}: {split} should have {expected[0]} images of {expected[1]} classes, "
                f"but has {found[0]} of {found[1]}"
            )
    if spec.first_test_class is not None and "test" in splits and splits["test"].num_classes:
        first = splits["test"].class_names[0]
        if _bare(first) != _bare(spec.first_test_class):
            problems.append(f"{spec.name}: the first test class should be {spec.first_test_class}, but is {first}")
    return problems


def check_counts(spec: DatasetSpec, splits: Mapping[str, ImageSet]) -> None:
    """Raise ValueError if anything is wrong, see `wrong_counts`."""
    problems = wrong_counts(spec, splits)
    if problems:
        raise ValueError("; ".join(problems) + ": another version, or an incomplete download")


def _bare(name: str) -> str:
    """`101.White_Pelican` -> `whitepelican`."""
    return re.sub(r"[^a-z]", "", name.lower())
