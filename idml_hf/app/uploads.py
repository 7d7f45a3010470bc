"""Many uploaded pictures at once: single files and ZIP archives, searched for, with a table out."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from idml_hf.data import ImageSet, UnreadableImageError
from idml_hf.data.decoding import MAX_FILE_BYTES, check_size, open_image
from idml_hf.data.folders import is_image_name
from idml_hf.data.unreadable_images import check_bytes
from idml_hf.index.index import IDMLIndex
from idml_hf.table_files import write_table

MOST_PICTURES = 1000
"""More than these are not taken at once."""
_MOST_BYTES = 2**30  # of all pictures of one upload, unpacked
MAX_UPLOAD_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded: a server has many at a time."""


def check_upload(data: bytes) -> None:
    """Refuse what is no picture, or one of too many pixels, by its header.

    Raises:
        UnreadableImageError: saying which.
    """
    check_size(*open_image(data).size, most=MAX_UPLOAD_PIXELS)


def read_uploads(paths: Sequence[str]) -> tuple[ImageSet, list[tuple[str, str]]]:
    """The pictures in uploaded files, by their names, and those that cannot be read, each with why.

    Args:
        paths: files; those that end on `.zip` are looked into, and the files in them that are called like pictures
            are taken.

    Raises:
        ValueError: for a broken archive, or more pictures than are taken at once.
    """
    names: list[str] = []
    contents: list[bytes] = []
    bad: list[tuple[str, str]] = []
    taken = 0
    for name, data in _files(paths):
        taken += len(data)
        if len(names) + len(bad) >= MOST_PICTURES or taken > _MOST_BYTES:
            raise ValueError(f"At most {MOST_PICTURES} pictures of {_MOST_BYTES >> 20} MB in all are taken at once")
        try:
            check_upload(data)
            check_bytes(data, thorough=True)
        except UnreadableImageError as error:
            bad.append((name, str(error)))
        else:
            names.append(name)
            contents.append(data)
    unknown = np.full(len(names), -1)
    return ImageSet.from_encoded(contents, [None] * len(names), unknown, (), ids=names), bad


def _files(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if not path.lower().endswith(".zip"):
            yield Path(path).name, Path(path).read_bytes()
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.is_dir() or not is_image_name(Path(member.filename).name):
                        continue
                    with archive.open(member) as file:
                        yield member.filename, file.read(min(MAX_FILE_BYTES, _MOST_BYTES) + 1)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ValueError(f"{Path(path).name} cannot be unpacked: {error}") from error


def search_all(index: IDMLIndex, paths: Sequence[str]) -> tuple[pa.Table, list[tuple[str, str]]]:
    """The first match of each uploaded picture, as `SearchResult.to_table` has it, and what cannot be read.

    Raises:
        ValueError: as `read_uploads` does, or if no picture can be read.
    """
    images, bad = read_uploads(paths)
    if not len(images):
        raise ValueError("There is no picture that can be read" + (f": {bad[0][0]} {bad[0][1]}" if bad else ""))
    return index.search(images, k=1).to_table(), bad


def save_table(table: pa.Table, folder: Path) -> str:
    """Write a table as `matches.csv` into a folder."""
    write_table(folder / "matches.csv", table)
    return str(folder / "matches.csv")


__all__ = ["MOST_PICTURES", "read_uploads", "save_table", "search_all"]
