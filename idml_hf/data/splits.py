"""Splits of a data set by class: what is searched at test time are classes that training never saw."""

from __future__ import annotations

import numpy as np

from .image_set import ImageSet


def split_by_class(images: ImageSet, num_train_classes: int | None = None) -> tuple[ImageSet, ImageSet]:
    """The zero-shot split: the first classes train, the others test (Song et al., 2016, section 5).

    Args:
        images: all images, with classes in their official order.
        num_train_classes: default: half of the classes, rounded down.

    Returns:
        train and test, each with its classes numbered from 0.

    Raises:
        ValueError: if a side would be without a class.
    """
    first = images.num_classes // 2 if num_train_classes is None else num_train_classes
    if not 0 < first < images.num_classes:
        raise ValueError(
            f"{images.num_classes} classes cannot be split into {first} for training and the rest for test"
        )
    return images.select(images.labels < first).renumbered(), images.select(images.labels >= first).renumbered()


def hold_out_classes(train: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
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
    held_out = np.random.default_rng(seed).permutation(train.num_classes)[:count]
    mask = np.isin(train.labels, held_out)
    return train.select(~mask).renumbered(), train.select(mask).renumbered()
