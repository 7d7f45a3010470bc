"""Images in folders: one folder a class, or a folder of images without classes."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from idml_hf.errors import listing

from .image_set import UNLABELLED, ImageSet

logger = logging.getLogger("idml_hf.data")

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)


def is_image_name(name: str) -> bool:
    """Whether a file of this name should hold an image, by its suffix; hidden files are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_folder(path: Path | os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one.

    Raises:
        ValueError: for a symbolic link that leads back to itself.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{os.fspath(path)} is a symbolic link that leads back to itself: remove it") from error
        return False


def class_folders(root: Path) -> list[Path]:
    """The folders in `root`, sorted by name, hidden ones left out."""
    return sorted(entry for entry in root.iterdir() if is_folder(entry) and not entry.name.startswith("."))


def images_below(folder: Path, *parents: Path) -> list[Path]:
    """All image files in `folder` and the folders in it, in a fixed order.

    Args:
        folder: the folder.
        *parents: folders that contain it, to which no symbolic link may lead back either.

    Raises:
        ValueError: if symbolic links lead around in a circle.
    """
    return list(_walk(folder, ancestors=tuple(os.path.realpath(path) for path in (*parents, folder))))


def _walk(folder: Path, ancestors: tuple[str, ...]) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            real = os.path.realpath(entry.path)
            if real in ancestors:
                raise ValueError(f"{entry.path} is a symbolic link back to {real}, which contains it: remove it")
            yield from _walk(Path(entry.path), (*ancestors, real))
        elif is_image_name(entry.name):
            yield Path(entry.path)


def read_class_folders(root: Path, class_names: list[str] | None = None) -> ImageSet:
    """A folder with one folder a class; the classes are numbered in the order of their names.

    Class folders without an image are named in a warning and are no class. Images beside the class folders come last,
    unlabelled.

    Args:
        root: the folder.
        class_names: number the classes in this order instead, each of these a class even if without a folder.

    Raises:
        ValueError: if a folder with images is none of `class_names`.
    """
    found = {folder.name: images_below(folder, root) for folder in class_folders(root)}
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        logger.warning("%s: no image in the class folder%s %s", root, "s" * (len(empty) > 1), listing(empty))
    names = [name for name in found if name not in empty] if class_names is None else class_names
    unknown = sorted(set(found) - set(empty) - set(names))
    if unknown:
        raise ValueError(f"{root}: {listing(unknown)} is none of the {len(names)} classes")
    labelled = [(path, label) for label, name in enumerate(names) for path in found.get(name, [])]
    loose = [root / name for name in _images_in(root)]
    paths = [path for path, _ in labelled] + loose
    return ImageSet.from_files(paths, [label for _, label in labelled] + [UNLABELLED] * len(loose), names)


def read_flat_folder(root: Path) -> ImageSet:
    """All images in `root`, without classes."""
    paths = images_below(root)
    return ImageSet.from_files(paths, np.full(len(paths), UNLABELLED), [])


def has_class_folders(root: Path) -> bool:
    """Whether some folder in `root` has an image: else `root` is a plain heap of images."""
    return any(images_below(folder, root) for folder in class_folders(root))


def _images_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if is_image_name(entry.name) and not is_folder(entry))
