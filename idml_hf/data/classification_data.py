"""Data sets for classification: train and test have the same classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets

from idml_hf.errors import listing

from .dataset_spec import check_counts
from .exclusions import without_excluded
from .image_set import ImageSet, concatenate
from .sources import open_source
from .splits import NO_CLASSES, given_splits, hold_out_images, labelled_only, named_splits
from .unreadable_images import drop_bad_images


@dataclass(frozen=True)
class ClassificationData:
    """Training, validation and test images, whose labels mean the same class in all of them.

    Args:
        name: name, path or Hub id it was loaded by.
        train: what to train on.
        validation: images to choose among models by, or None.
        test: images to measure on.
    """

    name: str
    train: ImageSet
    validation: ImageSet | None
    test: ImageSet

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.train.class_names


def load_classification_data(
    name_or_path: str | Path | datasets.Dataset | datasets.DatasetDict,
    *,
    root: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.2,
    skip_bad_images: bool = False,
    check_images: bool = True,
    seed: int = 0,
    exclude: str | Path | None = None,
) -> ClassificationData:
    """Load a data set whose test images are of the training classes.

    Args:
        name_or_path, root, image_column, label_column, revision, skip_bad_images, check_images, exclude: as for
            `load_retrieval_data`.
        validation_fraction: share of the training images of each class to hold out as `validation`.
        test_fraction: share of the images of each class to test on, where the source has no splits.
        seed: chooses the images held out.

    Raises:
        FileNotFoundError, ValueError: if the data set is not there, is not what it should be, or tests classes that
            are not trained.
        UnreadableImageError: listing the images that cannot be read.
    """
    source = open_source(
        name_or_path, root=root, image_column=image_column, label_column=label_column, revision=revision
    )
    if source.spec is not None and source.spec.task == "classification":
        check_counts(source.spec, named_splits(source))
    validation = None
    splits = {split: labelled_only(images, source.name) for split, images in source.splits.items()}
    if not any(images.num_classes for images in splits.values()):
        raise ValueError(f"{source.name}: {NO_CLASSES}")
    if "all" in splits:
        train, test = hold_out_images(splits["all"], test_fraction, seed)
    else:
        train, validation, test = given_splits(splits, source.name)
        train, test = _same_classes(train, test, source.name)
        validation = None if validation is None else _same_classes(train, validation, source.name)[1]
    train = without_excluded(train, exclude)
    if check_images and not source.embedded:
        sets = [train, test] if validation is None else [train, test, validation]
        train, test, *rest = drop_bad_images(sets, skip=skip_bad_images)
        validation = rest[0] if rest else None
    if validation_fraction:
        train, validation = hold_out_images(train, validation_fraction, seed)
    return ClassificationData(source.name, train, validation, test)


def _same_classes(train: ImageSet, other: ImageSet, name: str) -> tuple[ImageSet, ImageSet]:
    """Number the classes of both alike, those of `train`."""
    train, other_names = train.renumbered(), set(other.renumbered().class_names)
    unknown = sorted(other_names - set(train.class_names))
    if unknown:
        raise ValueError(
            f"{name}: {len(unknown)} of {len(other_names)} test classes are not trained ({listing(unknown)}); "
            "is this a data set for retrieval?"
        )
    both = concatenate(train, other)
    return both.select(range(len(train))), both.select(range(len(train), len(both)))
