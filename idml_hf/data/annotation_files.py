"""Reading text files that list images, which may come from anywhere and are trusted in nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from .decoding import UnreadableImageError

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def locate(root: Path, marker: str, *subfolders: str) -> Path:
    """The folder that holds `marker`: `root` or one of its `subfolders`.

    Raises:
        FileNotFoundError: if none does, with a hint where an archive waits to be extracted.
    """
    for folder in (root, *(root / name for name in subfolders)):
        if (folder / marker).exists():
            return folder
    archives = sorted(entry.name for entry in root.iterdir() if entry.suffix.lower() in ARCHIVES)
    hint = f"; {archives[0]} is an archive, which is not opened: extract it first" if archives else ""
    raise FileNotFoundError(f"{root} has no {marker}{hint}")


def read_rows(path: Path, columns: Sequence[str], *, header: bool = False) -> list[list[str]]:
    """The rows of a file of columns between spaces; the last column may itself hold spaces.

    Args:
        path: the file, in UTF-8.
        columns: names of the columns, for messages.
        header: leave out the first line.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: naming the line that has too few columns, e.g. that lacks its class.
    """
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if (header and number == 1) or not line.strip():
                continue
            row = line.split(maxsplit=len(columns) - 1)
            if len(row) != len(columns):
                raise ValueError(f"{path}, line {number}: expected {' '.join(columns)}, found {line.strip()!r}")
            row[-1] = row[-1].rstrip()
            rows.append(row)
    return rows


def integer(text: str, what: str, path: Path) -> int:
    """`text` as integer, or a ValueError that says `what` it should have been and where it stands."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{path}: {what} should be an integer, found {text!r}") from None


def path_below(folder: Path, relative: str, source: Path) -> Path:
    """`folder / relative`, where `relative` was read from `source` and must not lead out of the folder.

    Raises:
        ValueError: if it does: an absolute path, a drive, or a step up.
    """
    windows = PureWindowsPath(relative)
    steps_up = ".." in PurePosixPath(relative).parts or ".." in windows.parts
    if not relative or "\0" in relative or relative.startswith(("/", "\\")) or windows.drive or steps_up:
        raise ValueError(f"{source}: the path {relative!r} leads out of {folder}; refused")
    return folder / relative


def file_below(path: str, folder: Path | None) -> str:
    """The file that a row of a table names, if it lies in `folder`, links followed.

    Raises:
        UnreadableImageError: if it lies elsewhere.
    """
    if folder is None:
        raise UnreadableImageError("is not in its table, which only names a file; refused")
    root = os.path.realpath(folder)
    file = os.path.realpath(os.path.join(root, path))
    if "\0" in path or os.path.commonpath([root, file]) != root:
        raise UnreadableImageError(f"is not in its table, which names a file outside of {folder}; refused")
    return file
