"""`load_images`: one collection of images, whatever it is stored in."""

from __future__ import annotations

from pathlib import Path

import datasets

from .image_set import ImageSet
from .sources import Source, open_source
from .splits import check_source, join_splits, retrieval_splits
from .unreadable_images import drop_bad_images


def load_images(
    name_or_path: str | Path | datasets.Dataset | datasets.DatasetDict,
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
        name_or_path: as for `load_retrieval_data`; also images without classes, whose labels are -1.
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
        need_labels=False,
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
        return join_splits(source.splits)
    if whole is None and "train" not in source.splits:
        return _named(source.splits.get(split or next(reversed(source.splits))), split, source)
    train, validation, test = retrieval_splits(source)
    check_source(source, train, test)
    return _named({"train": train, "validation": validation, "test": test, None: test}[split], split, source)


def _named(images: ImageSet | None, split: str | None, source: Source) -> ImageSet:
    if images is None:
        raise ValueError(f"{source.name} has no {split} split")
    return images
