"""Images and labels in the columns of a table: parquet files and Hub data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq

from .image_set import UNLABELLED, ImageSet

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "item_id")
IN_MEMORY_BYTES = 256 * 2**20


def read_parquet(paths: Sequence[Path]) -> datasets.Dataset:
    """Parquet files as one table; small ones are read into memory, large ones through the cache of `datasets`.

    Raises:
        ValueError: naming a file that is no parquet file.
    """
    for path in paths:
        try:
            pq.read_schema(path)
        except Exception as error:
            raise ValueError(f"{path} cannot be read as parquet ({str(error).splitlines()[0]})") from error
    if sum(path.stat().st_size for path in paths) > IN_MEMORY_BYTES:
        return datasets.Dataset.from_parquet([str(path) for path in paths])
    return datasets.concatenate_datasets([datasets.Dataset(pq.read_table(path)) for path in paths])


def read_tables(
    tables: Mapping[str, datasets.Dataset],
    source: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    class_name_column: str | None = None,
    group_column: str | None = None,
) -> dict[str, ImageSet]:
    """Split name -> table to split name -> images, the classes numbered alike in all splits.

    Args:
        tables: the splits.
        source: name of the data set, for messages.
        image_column, label_column: default: the usual names, see `IMAGE_COLUMNS` and `LABEL_COLUMNS`.
        class_name_column: column with the name of an image's class; default: the names of a `ClassLabel`, else
            the label.
        group_column: column with the group of an image.

    A split without a single label, such as a test split kept secret, is left out.

    Raises:
        ValueError: naming a column that is missing or wrong, or the row of a missing label.
    """
    columns = {
        split: _columns(table, f"{source} ({split})", image_column, label_column) for split, table in tables.items()
    }
    raw = {split: _labels(table, columns[split][1], f"{source} ({split})") for split, table in tables.items()}
    all_labels = np.concatenate(list(raw.values()))
    values = np.unique(all_labels[all_labels != _unlabelled(all_labels)])
    names = _class_names(tables, {split: column for split, (_, column) in columns.items()}, values, class_name_column)
    sets = {}
    for split, table in tables.items():
        known = raw[split] != _unlabelled(raw[split])
        labels = np.where(known, np.searchsorted(values, raw[split]), UNLABELLED)
        original = raw[split] if raw[split].dtype.kind == "i" else labels
        images = table.select_columns(columns[split][0])
        if columns[split][0] != "image":
            images = images.rename_column(columns[split][0], "image")
        sets[split] = ImageSet.from_column(images, labels, names, f"{source} {split}", original)
        if group_column is not None:
            if group_column not in table.column_names:
                raise ValueError(_missing(group_column, table, f"{source} ({split})"))
            sets[split] = sets[split].grouped(table[group_column][:], group_column)
    labelled = {split: images for split, images in sets.items() if (images.labels != UNLABELLED).any()}
    return labelled or sets
    return sets


def _columns(table: datasets.Dataset, source: str, image: str | None, label: str | None) -> tuple[str, str]:
    for wanted in (image, label):
        if wanted is not None and wanted not in table.column_names:
            raise ValueError(_missing(wanted, table, source))
    image = image or next((name for name in IMAGE_COLUMNS if name in table.column_names), None)
    label = label or next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    if image is None or label is None:
        raise ValueError(_missing("image" if image is None else "label", table, source))
    feature = table.features[image]
    if not isinstance(feature, datasets.Image) and not _looks_like_image(feature):
        raise ValueError(f"{source}: column {image!r} holds {feature}, not images")
    return image, label


def _looks_like_image(feature: object) -> bool:
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _missing(column: str, table: datasets.Dataset, source: str) -> str:
    return f"{source} has no column {column!r}; its columns: {', '.join(table.column_names)}"


def _labels(table: datasets.Dataset, column: str, source: str) -> np.ndarray:
    values = table.select_columns(column).with_format("arrow")[:].column(column)
    if values.null_count:
        row = next(row for row, value in enumerate(values) if not value.is_valid)
        raise ValueError(f"{source}: row {row} has no {column!r}")
    labels = values.to_numpy()
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    if labels.dtype.kind in "OUS" and isinstance(labels[0] if len(labels) else "", str):
        return labels.astype(str)
    raise ValueError(f"{source}: column {column!r} holds {table.features[column]}, not integers or strings")


def _unlabelled(labels: np.ndarray) -> object:
    return UNLABELLED if labels.dtype.kind == "i" else ""


def _class_names(
    tables: Mapping[str, datasets.Dataset],
    label_columns: Mapping[str, str],
    values: np.ndarray,
    name_column: str | None,
) -> list[str]:
    if name_column is not None:
        names: dict[object, str] = {}
        for split, table in tables.items():
            names.update(zip(table[label_columns[split]][:], table[name_column][:], strict=True))
        return [str(names[value]) for value in values.tolist()]
    split, table = next(iter(tables.items()))
    feature = table.features[label_columns[split]]
    if isinstance(feature, datasets.ClassLabel):
        return [feature.int2str(value) for value in values.tolist()]
    return [str(value) for value in values.tolist()]
