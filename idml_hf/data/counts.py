"""Tells a wrong copy of a data set, or an incomplete one, from the right one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from .image_set import UNLABELLED, ImageSet
from .registry import DatasetSpec


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
