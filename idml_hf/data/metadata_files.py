"""Folders of images listed in a metadata file, as `datasets` reads them: file name, class, and more columns."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import numpy as np

from .annotation_files import path_below
from .folders import images_below
from .image_set import UNLABELLED, ImageSet
from .parquet_files import read_parquet
from .split_names import one_a_split, split_of

logger = logging.getLogger("idml_hf.data")

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"
_MAX_BYTES = 2**30


def metadata_file(folder: Path) -> Path | None:
    """The metadata file in `folder`, or None.

    Raises:
        ValueError: if there are several.
    """
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has both {found[0].name} and {found[1].name}: keep one of them")
    return found[0] if found else None


def read_metadata_folder(
    folder: Path, label_column: str | None, group_column: str | None, need_labels: bool = True
) -> dict[str, ImageSet]:
    """Read the metadata file, with the columns `file_name` (a path below `folder`) and `label`; classes by name.

    Without the column `label`, images that all lie in class folders are of these classes.

    Args:
        folder: the folder.
        label_column: column with the class; default: `label`.
        group_column: column with the group, or None.
        need_labels: whether it is an error if neither the column `label` nor folders tell the classes.

    Returns:
        `all` -> images; or, where each file lies in a folder that is called like a split, split -> images.

    Raises:
        ValueError: naming a missing column, the line that lacks a value, or a path that leads out of the folder.
    """
    source = metadata_file(folder)
    assert source is not None
    columns, rows = _read(source)
    label = label_column or "label"
    if label_column is None and label not in columns and FILE_COLUMN in columns:
        classes = _class_folders([str(row.get(FILE_COLUMN) or "").strip() for _, row in rows])
        if classes is not None:
            columns = [*columns, label]
            rows = [(number, row | {label: name}) for (number, row), name in zip(rows, classes, strict=True)]
    labelled = label in columns or label_column is not None or need_labels
    wanted = [FILE_COLUMN, *([label] if labelled else []), *([group_column] if group_column else [])]
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise ValueError(f"{source} has no column {missing[0]!r}; its columns: {', '.join(columns)}")
    table: list[list[Any]] = []
    others = [column for column in columns if column not in (FILE_COLUMN, label)]
    extra: dict[str, list[Any]] = {column: [] for column in others}
    for number, row in rows:
        values = [row.get(column) for column in wanted]
        values = [value.strip() if isinstance(value, str) else value for value in values]
        lacking = [column for column, value in zip(wanted, values, strict=True) if value is None or value == ""]
        if lacking:
            raise ValueError(f"{source}, line {number}: no {lacking[0]}")
        table.append(values)
        for column in others:
            extra[column].append(row.get(column))
    files = [str(row[0]) for row in table]
    if labelled:
        numbered = all(type(row[1]) is int for row in table)
        names, labels = np.unique([row[1] if numbered else str(row[1]) for row in table], return_inverse=True)
    else:
        logger.warning("%s has no column %r: its images have no classes", source, label)
        names, labels = np.array([]), np.full(len(table), UNLABELLED)
    paths = [path_below(folder, file, source) for file in files]
    images = replace(ImageSet.from_files(paths, labels, [str(name) for name in names]), extra=_extra(extra))
    if group_column is not None:
        images = images.grouped([row[-1] for row in table], group_column)
    unlisted = len(set(images_below(folder)) - set(paths))
    if unlisted:
        logger.warning("%s: %d images in the folder are not listed in it and are left out", source, unlisted)
    return _by_split(images, files, str(source))


def _class_folders(files: list[str]) -> list[str] | None:
    """The class folder of each file, below that of its split if there are such; None unless these are several."""
    folders = [PurePosixPath(file).parts[:-1] for file in files]
    if folders and all(parts and split_of(parts[0]) for parts in folders):
        folders = [parts[1:] for parts in folders]
    classes = [parts[0] for parts in folders if parts]
    return classes if len(classes) == len(files) and len(set(classes)) > 1 else None


def _extra(columns: dict[str, list[Any]]) -> datasets.Dataset | None:
    """The columns that hold numbers, texts or truth values, all alike, as a table; empty texts are no values."""
    kept = {}
    for name, values in columns.items():
        values = [None if value == "" else value for value in values]
        kinds = {float if type(value) is int else type(value) for value in values if value is not None}
        if len(kinds) == 1 and kinds <= {float, str, bool}:
            kept[name] = values
    return datasets.Dataset.from_dict(kept) if kept else None


def _by_split(images: ImageSet, files: list[str], source: str) -> dict[str, ImageSet]:
    folders = [PurePosixPath(file).parts[0] if "/" in file else "" for file in files]
    found = sorted(set(folders))
    if not found or not all(split_of(folder) for folder in found):
        return {"all": images}
    if len(found) == 1:
        return {"all": images}
    places = np.array(folders)
    return {split: images.select(places == folder) for split, folder in one_a_split(found, source).items()}


def _read(source: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """Names of the columns, and the rows with the numbers of their lines."""
    if source.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{source} has {source.stat().st_size:,} bytes, too many for a list of images")
    try:
        if source.suffix == ".parquet":
            table = read_parquet([source])
            return table.column_names, list(enumerate(table.to_list(), start=1))
        rows = list(_csv_rows(source) if source.suffix == ".csv" else _json_rows(source))
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not in UTF-8 ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise ValueError(f"{source} cannot be read as CSV ({error})") from error
    columns = list(dict.fromkeys(name for _, row in rows for name in row if name is not None))
    return columns, rows


def _csv_rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, row


def _json_rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with source.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{source}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{source}, line {number}: expected an object with names and values")
            yield number, row
