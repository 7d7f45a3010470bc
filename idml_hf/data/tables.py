"""Images and labels in the columns of a table: parquet files, Hub data sets, and `datasets.Dataset` in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from .image_set import ANYWHERE, UNLABELLED, ImageSet
from .split_names import labelled_splits

logger = logging.getLogger("idml_hf.data")

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "item_id")
# These make tables of files whose rows could name any other file; the others list pictures that the user pointed at.
_UNTRUSTED_BUILDERS = ("parquet", "arrow", "json", "webdataset")


def read_tables(
    tables: Mapping[str, datasets.Dataset],
    source: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    class_name_column: str | None = None,
    group_column: str | None = None,
    folder: Path | None = None,
    need_labels: bool = True,
) -> dict[str, ImageSet]:
    """Split name -> table to split name -> images, the classes numbered alike in all splits, and joined by name.

    Args:
        tables: the splits; they may be views, shuffled or selected, and of any format.
        source: name of the data set, for messages.
        image_column: default: a usual name, see `IMAGE_COLUMNS`, else the only column of images.
        label_column: default: a usual name, see `LABEL_COLUMNS`, else the only column of class labels.
        class_name_column: column with the name of an image's class; default: the names of the split's own
            `ClassLabel`, else the label.
        group_column: column with the group of an image.
        folder: where the files may lie that a row names instead of holding the image; None: nowhere.
        need_labels: whether a table without a label column is an error; else its images are unlabelled.

    A split without a single label, such as a test split kept secret, is left out.

    Raises:
        ValueError: naming a column that is missing or wrong, or the row of a missing label.
    """
    tables = {split: table.with_format(None) for split, table in tables.items()}
    columns = {
        split: (
            _image_column(table, f"{source} ({split})", image_column),
            _label_column(table, f"{source} ({split})", label_column, need_labels),
        )
        for split, table in tables.items()
    }
    classes = {
        split: _classes(table, columns[split][1], class_name_column, f"{source} ({split})")
        for split, table in tables.items()
    }
    labels, names = _join_classes(classes, source)
    sets = {}
    for split, table in tables.items():
        image, label = columns[split]
        images = table.select_columns(image)
        if image != "image":
            images = images.rename_column(image, "image")
        original = classes[split].numbers
        sets[split] = ImageSet.from_column(images, labels[split], names, f"{source} {split}", original, folder)
        sets[split] = replace(sets[split], extra=_extra(table, {image, label, class_name_column}))
        if group_column is not None:
            if group_column not in table.column_names:
                raise ValueError(_missing(group_column, table, f"{source} ({split})"))
            sets[split] = sets[split].grouped(_values(table, group_column).to_pylist(), group_column)
        if label is None:
            logger.warning("%s: its images have no classes", _missing("label", table, f"{source} ({split})"))
    return labelled_splits(sets, source)


def _extra(table: datasets.Dataset, used: set[str | None]) -> datasets.Dataset | None:
    """The columns of numbers, texts and truth values, and of class labels, that are not `used`."""
    names = []
    for name, feature in table.features.items():
        kind = getattr(feature, "dtype", "")
        plain = isinstance(feature, datasets.Value) and kind.startswith(("int", "uint", "float", "bool", "string"))
        if name not in used and (plain or isinstance(feature, datasets.ClassLabel)):
            names.append(name)
    return table.select_columns(names) if names else None


def trusted_folder(table: datasets.Dataset | datasets.IterableDataset) -> Path | None:
    """Where the files may lie that rows of a user's own `Dataset` name: anywhere, unless they come from elsewhere."""
    return None if table.info.builder_name in _UNTRUSTED_BUILDERS else ANYWHERE


@dataclass(frozen=True)
class _Classes:
    """The classes of one split, before those of all splits are joined.

    Args:
        rows: integers (N,), which of the classes each image has, or -1.
        names: name of each class.
        keys: what tells the classes apart, across splits too.
        ranks: what orders them, if `order` is that of all splits.
        order: what the ranks mean.
        numbers: int64 (N,), the labels as the source numbers them, or None where it does not.
    """

    rows: np.ndarray
    names: list[str]
    keys: list[Any]
    ranks: list[Any]
    order: Any
    numbers: np.ndarray | None


def _classes(table: datasets.Dataset, column: str | None, name_column: str | None, source: str) -> _Classes:
    if column is None:
        return _Classes(np.full(len(table), UNLABELLED), [], [], [], None, None)
    raw = _labels(table, column, source)
    is_text = raw.dtype.kind == "U"
    values, first, rows = np.unique(raw, return_index=True, return_inverse=True)
    if values.size and values[0] == ("" if is_text else UNLABELLED):  # the smallest there is
        values, first, rows = values[1:], first[1:], rows - 1
    found = values.tolist()
    numbers = None if is_text else raw
    feature = table.features[column]
    if name_column is not None and name_column in table.column_names:
        names = [str(name) for name in _values(table, name_column).take(pa.array(first)).to_pylist()]
        return _Classes(rows, names, list(zip(found, names, strict=True)), found, "value", numbers)
    if isinstance(feature, datasets.ClassLabel) and feature.names:
        wrong = [value for value in found if not 0 <= value < len(feature.names)]
        if wrong:
            raise ValueError(f"{source}: column {column!r} has the label {wrong[0]}, of {len(feature.names)} names")
        names = [feature.names[value] for value in found]
        return _Classes(rows, names, names, found, tuple(feature.names), numbers)
    names = [str(value) for value in found]
    return _Classes(rows, names, names, found, "text" if is_text else "number", numbers)


def _join_classes(splits: Mapping[str, _Classes], source: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels of the rows of each split, and the names of all classes.

    They are in the order of their numbers or names if that is the same in all splits; else those of the first split
    come first.

    Raises:
        ValueError: if one split names its classes and another only numbers them.
    """
    orders = {classes.order for classes in splits.values() if classes.keys}
    if "number" in orders and len(orders) > 1:
        numbered = [split for split, classes in splits.items() if classes.order == "number"]
        raise ValueError(
            f"{source}: {', '.join(numbered)} only numbers its classes, and the other splits name theirs; "
            "give all splits the same class labels"
        )
    known: dict[Any, tuple[Any, str]] = {}
    for classes in splits.values():
        for key, rank, name in zip(classes.keys, classes.ranks, classes.names, strict=True):
            known.setdefault(key, (rank, name))
    keys = sorted(known, key=lambda key: known[key][0]) if len(orders) == 1 else list(known)
    number = {key: label for label, key in enumerate(keys)}
    labels = {
        split: np.array([*(number[key] for key in classes.keys), UNLABELLED], dtype=np.int64)[classes.rows]
        for split, classes in splits.items()
    }
    return labels, [known[key][1] for key in keys]


def _image_column(table: datasets.Dataset, source: str, wanted: str | None) -> str:
    if wanted is not None and wanted not in table.column_names:
        raise ValueError(_missing(wanted, table, source))
    usual = next((name for name in IMAGE_COLUMNS if name in table.column_names), None)
    typed = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    column = wanted or usual or (typed[0] if len(typed) == 1 else None)
    if column is None:
        raise ValueError(_missing("image", table, source))
    feature = table.features[column]
    as_struct = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    as_bytes = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")
    if not (isinstance(feature, datasets.Image) or as_struct or as_bytes):
        raise ValueError(f"{source}: column {column!r} holds {feature}, not images")
    return column


def _label_column(table: datasets.Dataset, source: str, wanted: str | None, needed: bool) -> str | None:
    if wanted is not None and wanted not in table.column_names:
        raise ValueError(_missing(wanted, table, source))
    usual = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    typed = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    column = wanted or usual or (typed[0] if len(typed) == 1 else None)
    if column is None and needed:
        raise ValueError(_missing("label", table, source))
    return column


def _missing(column: str, table: datasets.Dataset, source: str) -> str:
    return f"{source} has no column {column!r}; its columns: {', '.join(table.column_names)}"


def _values(table: datasets.Dataset, column: str) -> pa.ChunkedArray:
    return table.select_columns(column).with_format("arrow")[:].column(column)


def _labels(table: datasets.Dataset, column: str, source: str) -> np.ndarray:
    """The labels as int64 or as text, one a row.

    Raises:
        ValueError: for anything else, numbers beyond int64, or naming the row that has none.
    """
    values = _values(table, column)
    if values.null_count:
        row = next(row for row, value in enumerate(values) if not value.is_valid)
        raise ValueError(f"{source}: row {row} has no {column!r}")
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    try:
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return values.cast(kind).cast(pa.int64()).to_numpy()
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return values.cast(kind).to_numpy().astype(str)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{source}: column {column!r} has labels that are no 64-bit integers ({error})") from error
    raise ValueError(f"{source}: column {column!r} holds {table.features[column]}, not integers or strings")
