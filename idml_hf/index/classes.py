"""Class names of images that come together from several places: a class is known by its name, and keeps its number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def join_classes(
    names: tuple[str, ...], any_labelled: bool, new_names: tuple[str, ...], new_labels: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names of a gallery that gets more images, and the labels of these; classes are matched by name.

    Args:
        names: class names of the gallery, which keep their numbers.
        any_labelled: whether a class is known of any image in it.
        new_names: those of the new images.
        new_labels: labels of the new images, in their own numbers.

    Raises:
        ValueError: if only one side names its classes.
    """
    if not any_labelled:  # no number stands for anything yet
        return (new_names, new_labels) if new_names or (new_labels >= 0).any() else (names, new_labels)
    if not new_names and (not names or (new_labels < 0).all()):
        return names, new_labels
    if not names:
        raise ValueError("the classes of the index have no names, but those of the new images do (or vice versa)")
    if not new_names:
        raise ValueError("the classes of the new images need names: those of the index have some")
    number = {name: label for label, name in enumerate(names)}
    renumbered = np.array([number.setdefault(name, len(number)) for name in new_names], dtype=np.int64)
    return tuple(number), np.where(new_labels < 0, -1, renumbered[new_labels])


def different_names(names: Sequence[str], labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names without repetition, as earlier versions may have saved, and the labels in their numbers."""
    different = tuple(dict.fromkeys(names))
    if len(different) == len(names) or (len(labels) and labels.max() >= len(names)):
        return tuple(names), labels
    number = {name: label for label, name in enumerate(different)}
    renumbered = np.array([number[name] for name in names], dtype=np.int64)
    return different, np.where(labels < 0, -1, renumbered[labels])


__all__ = ["different_names", "join_classes"]
