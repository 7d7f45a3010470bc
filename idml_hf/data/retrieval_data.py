"""Data sets for retrieval: the classes of test are not seen in training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from idml_hf.errors import listing

from .exclusions import without_excluded
from .image_set import ImageSet
from .sources import open_source
from .splits import NO_CLASSES, check_source, hold_out_classes, retrieval_splits
from .unreadable_images import drop_bad_images

logger = logging.getLogger("idml_hf.data")


@dataclass(frozen=True)
class RetrievalData:
    """A data set for metric learning. The classes of train, validation and test are each numbered from 0.

    Args:
        name: name, path or Hub id it was loaded by.
        train: what to train on.
        validation: training classes held out to choose among models, or None.
        test: classes to measure on, which training has not seen unless the source's own splits share classes; empty
            where all classes train.
        group_column: what `groups` of the sets stand for, or None.
    """

    name: str
    train: ImageSet
    validation: ImageSet | None
    test: ImageSet
    group_column: str | None

    @property
    def protocol(self) -> str:
        """`plain`, or `grouped:COLUMN` where gallery images of the query's class and group are to be ignored."""
        return "plain" if self.group_column is None else f"grouped:{self.group_column}"

    def summary(self) -> dict[str, Any]:
        """Name, protocol, and images and classes of each split, ready for JSON."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        counts = {
            split: {"images": len(images), "classes": images.num_classes}
            for split, images in splits.items()
            if images is not None and len(images)
        }
        return {"dataset": self.name, "protocol": self.protocol, **counts}

    def describe(self) -> str:
        """One line for people.

        Example:
            >>> load_retrieval_data("emoji-mini").describe()
            'emoji-mini: train 2300 images of 240 classes, test 2279 images of 240 classes, grouped by family'
        """
        summary = self.summary()
        parts = [
            f"{split} {counts['images']} images of {counts['classes']} classes"
            for split, counts in summary.items()
            if isinstance(counts, Mapping)
        ]
        if self.group_column is not None:
            parts.append(f"grouped by {self.group_column}")
        return f"{self.name}: {', '.join(parts)}"


def load_retrieval_data(
    name_or_path: str | Path | datasets.Dataset | datasets.DatasetDict,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    test_fraction: float | None = None,
    validation_fraction: float = 0.0,
    skip_bad_images: bool = False,
    check_images: bool = True,
    seed: int = 0,
    exclude: str | Path | None = None,
) -> RetrievalData:
    """Load a data set whose test classes are not seen in training.

    Args:
        name_or_path: a name of `DATASETS`; a folder with one folder a class, or with two such folders `train` and
            `test`; a folder with `train.parquet` and `test.parquet`; or a data set on the Hub, `org/name`. Where the
            source has no splits, the first half of its classes trains. Also a `datasets.Dataset` or `DatasetDict`; or
            `module:function`, or the name of an entry point in the group `idml_hf.datasets`: a function without
            arguments that gives an `ImageSet`, a mapping of `train`, `validation` and `test` to such sets, or a table
            of `datasets`.
        root: folder of a registered data set in its official layout.
        group_column: column whose value groups images, or "none"; default: what the registry says.
        image_column, label_column: columns of parquet files and Hub data sets; default: the usual names.
        revision: commit, tag or branch on the Hub; default: what the registry pins.
        test_fraction: share of the classes, the last ones, to test on; the splits of the source are joined for it. 0:
            train on all, and `test` is empty. Default: the splits of the source, or half of its classes.
        validation_fraction: share of the training classes to hold out as `validation`.
        skip_bad_images: leave out images that cannot be read instead of raising.
        check_images: look for images that cannot be read.
        seed: chooses the held-out classes.
        exclude: CSV file of training images to leave out, see [`idml_hf.data.exclusions.read_exclusions`].

    Raises:
        FileNotFoundError, ValueError: if the data set is not there, or is not what it should be.
        UnreadableImageError: listing the images that cannot be read.

    Example:
        >>> data = load_retrieval_data("emoji-mini")
        >>> len(data.train), data.train.num_classes, data.protocol
        (2300, 240, 'grouped:family')
    """
    source = open_source(
        name_or_path,
        root=root,
        group_column=group_column,
        image_column=image_column,
        label_column=label_column,
        revision=revision,
    )
    train, validation, test = retrieval_splits(source, test_fraction)
    if not train.num_classes:
        raise ValueError(f"{source.name}: {NO_CLASSES}")
    if test_fraction is None:
        check_source(source, train, test)
    train = without_excluded(train, exclude).renumbered()
    if check_images and not source.embedded:
        sets = [train, test] if validation is None else [train, test, validation]
        train, test, *rest = (images.renumbered() for images in drop_bad_images(sets, skip=skip_bad_images))
        validation = rest[0] if rest else None
    if validation_fraction:
        train, validation = hold_out_classes(train, validation_fraction, seed)
    _warn_about_lone_images(train, source.name)
    return RetrievalData(source.name, train, validation, test, train.group_column)


def _warn_about_lone_images(train: ImageSet, name: str) -> None:
    counts = np.bincount(train.labels, minlength=train.num_classes)
    lone = [train.class_names[label] for label in np.flatnonzero(counts == 1)]
    if lone:
        logger.warning(
            "%s: %d training classes have one image, so nothing to pull together: %s", name, len(lone), listing(lone)
        )
