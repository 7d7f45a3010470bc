"""What splits are called: train, validation and test, under the names that the field uses for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .image_set import UNLABELLED, ImageSet

logger = logging.getLogger("idml_hf.data")

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> the names that stand for it, in lower case; those that `datasets` knows, too."""


def split_of(name: str) -> str | None:
    """The split that a folder, file or split of this name holds, or None.

    Example:
        >>> split_of("Training"), split_of("dev"), split_of("trains")
        ('train', 'validation', None)
    """
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def one_a_split(names: Iterable[str], where: str) -> dict[str, str]:
    """Split -> the one of `names` that stands for it, train first and test last; other names are left out.

    Raises:
        ValueError: naming two that stand for the same split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split is not None and split in found:
            raise ValueError(
                f"{where} has both {found[split]} and {name}, which mean the same split: keep one of them"
            )
        if split is not None:
            found[split] = name
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def labelled_splits(splits: dict[str, ImageSet], source: str) -> dict[str, ImageSet]:
    """`splits` without those that have no label at all, such as a test split kept secret, unless none has one."""
    labelled = {split: images for split, images in splits.items() if (images.labels != UNLABELLED).any()}
    left_out = [split for split in splits if split not in labelled] if labelled else []
    if left_out:
        logger.warning("%s: no image of %s has a class, so it is left out", source, " and ".join(left_out))
    return labelled or splits
