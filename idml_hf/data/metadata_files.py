"""Folders of images listed in a `metadata.csv`, as `datasets` reads them: file name, class, and more columns."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from .annotation_files import path_below
from .image_set import ImageSet

METADATA = "metadata.csv"
FILE_COLUMN = "file_name"


def read_csv_folder(folder: Path, label_column: str | None, group_column: str | None) -> ImageSet:
    """Read `folder/metadata.csv` with the columns `file_name` (a path below `folder`) and `label`; classes by name.

    Args:
        folder: the folder.
        label_column: column with the class; default: `label`.
        group_column: column with the group, or None.

    Raises:
        ValueError: naming a missing column, the line that lacks a value, or a path that leads out of the folder.
    """
    source = folder / METADATA
    wanted = [FILE_COLUMN, label_column or "label", *([group_column] if group_column else [])]
    rows = []
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in wanted if column not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"{source} has no column {missing[0]!r}; its columns: {', '.join(reader.fieldnames or [])}"
            )
        for row in reader:
            values = [(row[column] or "").strip() for column in wanted]
            if not all(values):
                raise ValueError(f"{source}, line {reader.line_num}: no {wanted[values.index('')]}")
            rows.append(values)
    names, labels = np.unique([row[1] for row in rows], return_inverse=True)
    images = ImageSet.from_files([path_below(folder, row[0], source) for row in rows], labels, names.tolist())
    return images if group_column is None else images.grouped([row[2] for row in rows], group_column)
