"""Train, validation and test: the splits that a source has, or splits by class, by which test classes are unseen."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from idml_hf.errors import listing

from .dataset_spec import check_counts
from .image_set import UNLABELLED, ImageSet, concatenate
from .randomness import generator
from .sources import Source
from .vector_set import VectorSet

logger = logging.getLogger("idml_hf.data")

Labelled = TypeVar("Labelled", ImageSet, VectorSet)

NO_CLASSES = "the images have no classes: put those of each class into a folder of their own"


def labelled_only(images: ImageSet, name: str) -> ImageSet:
    """`images` without the unlabelled ones, with a warning that says how many of data set `name` these are."""
    unlabelled = int((images.labels == UNLABELLED).sum())
    if not unlabelled or not images.num_classes:
        return images
    logger.warning("%s: %d images have no class and are left out", name, unlabelled)
    return images.select(images.labels != UNLABELLED)


def split_by_class(images: Labelled, num_train_classes: int | None = None) -> tuple[Labelled, Labelled]:
    """The zero-shot split: the first classes train, the others test (Song et al., 2016, section 5).

    Args:
        images: all images, with classes in their official order.
        num_train_classes: default: half of the classes, rounded down.

    Returns:
        train and test, each with its classes numbered from 0; unlabelled images are in neither.

    Raises:
        ValueError: if a side would be without a class.
    """
    if not images.num_classes:
        raise ValueError(NO_CLASSES)
    first = images.num_classes // 2 if num_train_classes is None else num_train_classes
    if not 0 < first < images.num_classes:
        raise ValueError(
            f"{images.num_classes} classes cannot be split into {first} for training and the rest for test"
        )
    train = (images.labels >= 0) & (images.labels < first)
    return images.select(train).renumbered(), images.select(images.labels >= first).renumbered()


def split_last_classes(images: Labelled, test_fraction: float) -> tuple[Labelled, Labelled]:
    """As `split_by_class`, with so many of all classes for test, at least one; with 0 none, and all images train."""
    if test_fraction == 0:
        return images.renumbered(), images.select(np.zeros(len(images), dtype=bool)).renumbered()
    tested = min(max(1, round(test_fraction * images.num_classes)), images.num_classes - 1)
    return split_by_class(images, images.num_classes - tested)


def hold_out_classes(train: Labelled, fraction: float, seed: int) -> tuple[Labelled, Labelled]:
    """Hold whole classes out of the training set, to choose among models without looking at test classes.

    Args:
        train: the training set.
        fraction: share of its classes to hold out, in (0, 1); at least one class, at most all but one.
        seed: chooses the classes.

    Returns:
        the rest of the training set and the validation set, each with its classes numbered from 0.

    Raises:
        ValueError: for a fraction outside (0, 1), or fewer than two classes.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction is the share of training classes held out, in (0, 1); got {fraction}")
    if train.num_classes < 2:
        raise ValueError(f"cannot hold out classes of the {train.num_classes} there are for training")
    count = min(max(1, round(fraction * train.num_classes)), train.num_classes - 1)
    held_out = generator(seed).permutation(train.num_classes)[:count]
    mask = np.isin(train.labels, held_out)
    return train.select(~mask).renumbered(), train.select(mask).renumbered()


def hold_out_images(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Hold the same share of each class out, at random.

    Args:
        images: images of which each has a class.
        fraction: share to hold out, in (0, 1), rounded for each class; a class keeps at least one image.
        seed: chooses the images.

    Returns:
        the rest and the images held out, each in the old order, both with the classes of `images`.

    Raises:
        ValueError: for a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the share of images to hold out must lie in (0, 1); got {fraction}")
    order = generator(seed).permutation(len(images))
    order = order[np.argsort(images.labels[order], kind="stable")]
    counts = np.bincount(images.labels, minlength=images.num_classes)
    held = np.minimum(np.round(fraction * counts).astype(np.int64), np.maximum(counts - 1, 0))
    rank = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    mask = np.zeros(len(images), dtype=bool)
    mask[order] = rank < np.repeat(held, counts)
    return images.select(~mask), images.select(mask)


def retrieval_splits(source: Source, test_fraction: float | None = None) -> tuple[ImageSet, ImageSet | None, ImageSet]:
    """Train, validation and test with disjoint classes, each numbered from 0.

    With `test_fraction` the last classes test, so many of all that the source has; with 0 none does. Else, where the
    source has no splits, or its registry entry says so, classes are split by rule; else its splits are used as they
    are, with a warning if they share classes.
    """
    spec = source.spec
    splits = {split: labelled_only(images, source.name) for split, images in source.splits.items()}
    if test_fraction is not None:
        images = join_splits(splits)
        if not images.num_classes:
            raise ValueError(NO_CLASSES)
        train, test = split_last_classes(images, test_fraction)
        return train, None, test
    if "all" in splits or (spec is not None and (spec.num_train_classes or spec.task == "classification")):
        train, test = split_by_class(join_splits(splits), spec.num_train_classes if spec else None)
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


def join_splits(splits: Mapping[str, ImageSet]) -> ImageSet:
    """All images of a source, one split after the other."""
    return functools.reduce(concatenate, splits.values())
