"""Images in folders: one folder a class, or a folder of images without classes.

The reader of `datasets` is not used: it calls the innermost folder the class, takes any folder on the way that is
called like a split for one, drops the classes where there is a metadata file, copies its list into a cache, and names
no file in its errors.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from idml_hf.errors import listing

from .decoding import HEIF_SUFFIXES, SUFFIXES, path_text
from .image_set import UNLABELLED, ImageSet

logger = logging.getLogger("idml_hf.data")

# beside pictures lie files that nobody takes for one
_SIDE_FILES = frozenset(
    (".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".parquet", ".db", ".ini", "")
)


def is_image_name(name: str) -> bool:
    """Whether a file of this name should hold an image, by its suffix; hidden files are none."""
    return not name.startswith(".") and _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def is_folder(path: Path | os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one.

    Raises:
        ValueError: for a symbolic link that leads back to itself.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{path_text(path)} is a symbolic link that leads back to itself: remove it") from error
        return False


def class_folders(root: Path) -> list[Path]:
    """The folders in `root`, sorted by name, hidden ones left out."""
    return sorted(entry for entry in root.iterdir() if is_folder(entry) and not entry.name.startswith("."))


def images_below(folder: Path, *parents: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """All image files in `folder` and the folders in it, in a fixed order.

    Args:
        folder: the folder.
        *parents: folders that contain it, to which no symbolic link may lead back either.
        skipped: counts the other files by suffix.

    Raises:
        ValueError: if symbolic links lead around in a circle.
    """
    return list(_walk(folder, tuple(os.path.realpath(path) for path in (*parents, folder)), skipped))


def has_images(folder: Path) -> bool:
    """Whether there is an image file in `folder` or in the folders in it."""
    return next(_walk(folder, (os.path.realpath(folder),), None), None) is not None


def _walk(folder: Path, ancestors: tuple[str, ...], skipped: Counter[str] | None) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            real = os.path.realpath(entry.path)
            if real in ancestors:
                link = path_text(entry.path)
                raise ValueError(f"{link} is a symbolic link back to {path_text(real)}, which contains it: remove it")
            yield from _walk(Path(entry.path), (*ancestors, real), skipped)
        elif is_image_name(entry.name):
            yield Path(entry.path)
        elif skipped is not None:
            skipped[_suffix(entry.name)] += 1


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
    skipped: Counter[str] = Counter()
    folders = {path_text(folder.name): folder for folder in class_folders(root)}
    found = {name: images_below(folder, root, skipped=skipped) for name, folder in folders.items()}
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        logger.warning("%s: no image in the class folder%s %s", root, "s" * (len(empty) > 1), listing(empty))
    names = [name for name in found if name not in empty] if class_names is None else class_names
    unknown = sorted(set(found) - set(empty) - set(names))
    if unknown:
        raise ValueError(f"{root}: {listing(unknown)} is none of the {len(names)} classes")
    labelled = [(path, label) for label, name in enumerate(names) for path in found.get(name, [])]
    loose = sorted(entry.name for entry in os.scandir(root) if not is_folder(entry) and not entry.name.startswith("."))
    skipped.update(_suffix(name) for name in loose if not is_image_name(name))
    loose = [name for name in loose if is_image_name(name)]
    warn_of_skipped(root, skipped)
    paths = [path for path, _ in labelled] + [root / name for name in loose]
    return ImageSet.from_files(paths, [label for _, label in labelled] + [UNLABELLED] * len(loose), names)


def read_flat_folder(root: Path) -> ImageSet:
    """All images in `root` and the folders in it, without classes.

    Raises:
        ValueError: if there are none.
    """
    skipped: Counter[str] = Counter()
    paths = images_below(root, skipped=skipped)
    if not paths:
        raise ValueError(f"{root} has no images{_skipped_files(skipped)}")
    warn_of_skipped(root, skipped)
    return ImageSet.from_files(paths, np.full(len(paths), UNLABELLED), [])


def has_class_folders(root: Path) -> bool:
    """Whether some folder in `root` has an image: else `root` is a plain heap of images."""
    return any(has_images(folder) for folder in class_folders(root))


def warn_of_skipped(root: Path, skipped: Counter[str]) -> None:
    """Say how many files of which kinds are not read, unless they are texts and tables."""
    files = _skipped_files(skipped)
    if files:
        logger.warning("%s%s", root, files)


def _skipped_files(skipped: Counter[str]) -> str:
    kinds = [f"{count} {suffix}" for suffix, count in skipped.most_common() if suffix not in _SIDE_FILES]
    if not kinds:
        return ""
    heif = any(suffix in HEIF_SUFFIXES for suffix in skipped)
    hint = "; pip install 'idml-hf[heif]' to read .heic" if heif else ""
    return f": skipped files that are no images which can be read here ({listing(kinds)}){hint}"
