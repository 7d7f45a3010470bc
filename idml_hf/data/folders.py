"""Images in folders: one folder a class, or a folder of images without classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .image_set import UNLABELLED, ImageSet
from .messages import listing

logger = logging.getLogger("idml_hf.data")

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)


def is_image_name(name: str) -> bool:
    """Whether a file of this name should hold an image, by its suffix; hidden files are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def class_folders(root: Path) -> list[Path]:
    """The folders in `root`, sorted by name, hidden ones left out."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def images_below(folder: Path) -> list[Path]:
    """All image files in `folder` and the folders in it, in a fixed order.

    Raises:
        ValueError: if symbolic links lead around in a circle.
    """
    return list(_walk(folder, ancestors=(os.path.realpath(folder),)))


def _walk(folder: Path, ancestors: tuple[str, ...]) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if real in ancestors:
                raise ValueError(f"{entry.path} is a symbolic link back to {real}, which contains it: remove it")
            yield from _walk(Path(entry.path), (*ancestors, real))
        elif is_image_name(entry.name):
            yield Path(entry.path)


def read_class_folders(root: Path, class_names: list[str] | None = None) -> ImageSet:
    """A folder with one folder a class; the classes are numbered in the order of their names.

    Class folders without an image are named in a warning and are no class.

    Args:
        root: the folder.
        class_names: number the classes in this order instead, each of these a class even if without a folder.

    Raises:
        ValueError: if no class folder has an image, or a folder is none of `class_names`.
    """
    found = {folder.name: images_below(folder) for folder in class_folders(root)}
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        logger.warning("%s: no image in the class folder%s %s", root, "s" * (len(empty) > 1), listing(empty))
    loose = sum(is_image_name(entry.name) for entry in os.scandir(root) if entry.is_file())
    if not any(found.values()):
        hint = f"; its {loose} images lie in no class folder" if loose else ""
        raise ValueError(f"{root} has no class folders with images{hint}")
    if loose:
        logger.warning("%s: %d images lie in no class folder and are left out", root, loose)
    names = [name for name in found if name not in empty] if class_names is None else class_names
    unknown = sorted(set(found) - set(empty) - set(names))
    if unknown:
        raise ValueError(f"{root}: {listing(unknown)} is none of the {len(names)} classes")
    number = {name: label for label, name in enumerate(names)}
    paths = [path for name in names for path in found.get(name, [])]
    labels = [number[name] for name in names for _ in found.get(name, [])]
    return ImageSet.from_files(paths, labels, names)


def read_flat_folder(root: Path) -> ImageSet:
    """All images in `root`, without classes."""
    paths = images_below(root)
    return ImageSet.from_files(paths, np.full(len(paths), UNLABELLED), [])


def has_class_folders(root: Path) -> bool:
    """Whether `root` is laid out as folders of classes rather than as a plain heap of images."""
    return bool(class_folders(root)) and not any(
        is_image_name(entry.name) for entry in os.scandir(root) if entry.is_file()
    )
