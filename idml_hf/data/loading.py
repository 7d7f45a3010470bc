"""The door to all data: `load_retrieval_data` to train and evaluate, `load_images` to embed and search."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idml_hf.errors import listing

from .bad_images import drop_bad_images
from .counts import check_counts
from .image_set import ImageSet, concatenate
from .sources import Source, open_source
from .splits import hold_out_classes, labelled_only, split_by_class

logger = logging.getLogger("idml_hf.data")


@dataclass(frozen=True)
class RetrievalData:
    """A data set for metric learning. The classes of train, validation and test are each numbered from 0.

    Args:
        name: name, path or Hub id it was loaded by.
        train: what to train on.
        validation: training classes held out to choose among models, or None.
        test: classes to measure on, which training has not seen unless the source's own splits share classes.
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
            if images is not None
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
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    validation_fraction: float = 0.0,
    skip_bad_images: bool = False,
    check_images: bool = True,
    seed: int = 0,
) -> RetrievalData:
    """Load a data set whose test classes are not seen in training.

    Args:
        name_or_path: a name of `DATASETS`; a folder with one folder a class, or with two such folders `train` and
            `test`; a folder with `train.parquet` and `test.parquet`; or a data set on the Hub, `org/name`. Where the
            source has no splits, the first half of its classes trains.
        root: folder of a registered data set in its official layout.
        group_column: column whose value groups images, or "none"; default: what the registry says.
        image_column, label_column: columns of parquet files and Hub data sets; default: the usual names.
        revision: commit, tag or branch on the Hub; default: what the registry pins.
        validation_fraction: share of the training classes to hold out as `validation`.
        skip_bad_images: leave out images that cannot be read instead of raising.
        check_images: look for images that cannot be read.
        seed: chooses the held-out classes.

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
    train, validation, test = retrieval_splits(source)
    check_source(source, train, test)
    if check_images and not source.embedded:
        sets = [train, test] if validation is None else [train, test, validation]
        train, test, *rest = (images.renumbered() for images in drop_bad_images(sets, skip=skip_bad_images))
        validation = rest[0] if rest else None
    if validation_fraction:
        train, validation = hold_out_classes(train, validation_fraction, seed)
    _warn_about_lone_images(train, source.name)
    return RetrievalData(source.name, train, validation, test, train.group_column)


def load_images(
    name_or_path: str | Path,
    split: str | None = None,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    skip_bad_images: bool = False,
    check_images: bool = True,
) -> ImageSet:
    """Load one collection of images, to embed, index or evaluate it.

    Args:
        name_or_path: as for `load_retrieval_data`; also a folder of images without classes, whose labels are -1.
        split: "train", "validation" or "test" as `load_retrieval_data` splits, or "all". Default: everything where
            the source has no splits, else "test".

    The other arguments and the errors are those of `load_retrieval_data`.

    Example:
        >>> images = load_images("emoji-mini", split="test")
        >>> len(images), images[0].size, images.class_names[images.labels[0]]
        (2279, (48, 48), 'grinning face with smiling eyes')
    """
    source = open_source(
        name_or_path,
        root=root,
        group_column=group_column,
        image_column=image_column,
        label_column=label_column,
        revision=revision,
    )
    images = _one_split(source, split)
    if check_images and not source.embedded:
        (images,) = drop_bad_images([images], skip=skip_bad_images)
    return images


def _one_split(source: Source, split: str | None) -> ImageSet:
    if split not in (None, "train", "validation", "test", "all"):
        raise ValueError(f"unknown split {split!r}: train, validation, test or all")
    whole = source.splits.get("all")
    if whole is not None and (split in (None, "all") or not whole.num_classes):
        return whole
    if split == "all":
        return _join(source.splits)
    train, validation, test = retrieval_splits(source)
    check_source(source, train, test)
    images = {"train": train, "validation": validation, "test": test, None: test}[split]
    if images is None:
        raise ValueError(f"{source.name} has no validation split")
    return images


def retrieval_splits(source: Source) -> tuple[ImageSet, ImageSet | None, ImageSet]:
    """Train, validation and test with disjoint classes, each numbered from 0.

    Where the source has no splits, or its registry entry says so, classes are split by rule; else its splits are used
    as they are, with a warning if they share classes.
    """
    spec = source.spec
    splits = {split: labelled_only(images, source.name) for split, images in source.splits.items()}
    if "all" in splits or (spec is not None and (spec.num_train_classes or spec.task == "classification")):
        train, test = split_by_class(_join(splits), spec.num_train_classes if spec else None)
        return train, None, test
    train, validation, test = given_splits(splits, source.name)
    train, test = train.renumbered(), test.renumbered()
    shared = sorted(set(train.class_names) & set(test.class_names))
    if shared:
        logger.warning(
            "%s: %d of %d test classes are also training classes (%s): this does not measure unseen classes",
            source.name,
            len(shared),
            test.num_classes,
            listing(shared),
        )
    return train, None if validation is None else validation.renumbered(), test


def check_source(source: Source, train: ImageSet, test: ImageSet) -> None:
    """Compare a registered data set with its registry entry, see `check_counts`; `train` and `test` as split."""
    if source.spec is not None:
        splits = {"train": train, "test": test} if source.spec.task == "retrieval" else named_splits(source)
        check_counts(source.spec, splits)


def named_splits(source: Source) -> dict[str, ImageSet]:
    """Train, validation and test of the source as far as it has them, see `given_splits`."""
    train, validation, test = given_splits(source.splits, source.name)
    splits = {"train": train, "validation": validation, "test": test}
    return {split: images for split, images in splits.items() if images is not None}


def given_splits(splits: Mapping[str, ImageSet], name: str) -> tuple[ImageSet, ImageSet | None, ImageSet]:
    """Train, validation and test as a source has them; a lone validation split is the test set.

    Raises:
        ValueError: if there is no such pair.
    """
    rest = dict(splits)
    if "train" not in rest or len(rest) == 1:
        raise ValueError(f"{name} has no train and test splits; it has {', '.join(rest)}")
    test = rest.pop("test" if "test" in rest else "validation")
    return rest["train"], rest.get("validation"), test


def _join(splits: Mapping[str, ImageSet]) -> ImageSet:
    return functools.reduce(concatenate, splits.values())


def _warn_about_lone_images(train: ImageSet, name: str) -> None:
    counts = np.bincount(train.labels, minlength=train.num_classes)
    lone = [train.class_names[label] for label in np.flatnonzero(counts == 1)]
    if lone:
        logger.warning(
            "%s: %d training classes have one image, so nothing to pull together: %s", name, len(lone), listing(lone)
        )
