"""What is known of each image beside its class: columns of numbers and texts, by which a search can be narrowed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Columns = Mapping[str, pa.Array]

_TYPES = (pa.int64(), pa.float64(), pa.bool_(), pa.string())
CLASS = "class"


def as_columns(values: Mapping[str, Any] | None, number: int) -> dict[str, pa.Array]:
    """Columns of one value an image, as int64, float64, bool or string arrays; None stands for a missing value.

    Args:
        values: lists or arrays by name. Dates become texts.
        number: how many images there are.

    Raises:
        ValueError: naming the column that is too short or too long, or holds anything else.

    Example:
        >>> as_columns({"price": [3, None]}, 2)["price"].to_pylist()
        [3, None]
    """
    columns = {}
    for name, column in (values or {}).items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"metadata columns are named by texts, got {name!r}")
        columns[name] = _as_array(column, name)
        if len(columns[name]) != number:
            raise ValueError(f"metadata column {name!r} has {len(columns[name])} values for {number} images")
    return columns


def is_metadata(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type can be kept."""
    return any(check(kind) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, _is_text))


def joined(first: Columns, second: Columns, first_number: int, second_number: int) -> dict[str, pa.Array]:
    """The columns of two sets of images, one after the other; what only one of them has is missing for the other.

    Raises:
        ValueError: naming the column that holds texts in one and numbers in the other.
    """
    columns = {}
    for name in dict.fromkeys([*first, *second]):
        kind = (first[name] if name in first else second[name]).type
        parts = [
            side.get(name, pa.nulls(number, kind)) for side, number in ((first, first_number), (second, second_number))
        ]
        kinds = {part.type for part in parts if part.null_count < len(part)} or {kind}
        if kinds == {pa.int64(), pa.float64()}:
            kinds = {pa.float64()}
        if len(kinds) > 1:
            raise ValueError(f"metadata column {name!r} holds {parts[1].type} here, but {parts[0].type} in the index")
        kind = kinds.pop()
        columns[name] = pa.concat_arrays([part.cast(kind) for part in parts])
    return columns


def matching(columns: Columns, where: Mapping[str, Any], number: int) -> np.ndarray:
    """Which images have the wanted values, bool (N,).

    Args:
        columns: what is known of the images.
        where: by column a value, or several of which one is wanted; None wants images without a value.
        number: how many images there are.

    Raises:
        ValueError: for a column that is not there, or a value of another type.
    """
    if not isinstance(where, Mapping):
        raise ValueError(f'where takes columns and wanted values, as {{"shop": "A"}}, got {where!r}')
    wanted = np.ones(number, dtype=bool)
    for name, value in where.items():
        if name not in columns:
            known = f"it has {', '.join(columns)}" if columns else "it has none"
            raise ValueError(f"the index has no metadata column {name!r}: {known}")
        column = columns[name]
        several = isinstance(value, (list, tuple, set, frozenset, np.ndarray))
        values = _as_array(list(value) if several else [value], name)
        if pa.types.is_null(values.type):
            values = values.cast(column.type)
        if (values.type == pa.string()) != (column.type == pa.string()):
            raise ValueError(f"metadata column {name!r} holds {column.type}, not {values.type}")
        if pa.types.is_floating(values.type) or pa.types.is_floating(column.type):
            column, values = column.cast(pa.float64()), values.cast(pa.float64())
        wanted &= np.asarray(pc.is_in(column, value_set=values.cast(column.type)).fill_null(False))
    return wanted


def values_at(column: pa.Array, positions: np.ndarray) -> np.ndarray:
    """Values at `positions`, of any shape, as objects; None where a position is below 0 or there is no value."""
    flat = positions.ravel()
    found = pc.if_else(pa.array(flat >= 0), column.take(pa.array(flat.clip(min=0))), None)
    values = np.empty(flat.shape, dtype=object)
    values[:] = found.to_pylist()
    return values.reshape(positions.shape)


def _as_array(values: Any, name: str) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        values = values.tolist() if isinstance(values, np.ndarray) else list(values)
        values = [value.item() if isinstance(value, np.generic) else value for value in values]
        values = [value.isoformat() if isinstance(value, datetime.date) else value for value in values]
    try:
        array = values if isinstance(values, pa.Array) else pa.array(values)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_null(array.type):
            return array.cast(pa.string())
        if pa.types.is_temporal(array.type):
            return array.cast(pa.string())
        if not is_metadata(array.type):
            raise ValueError
        index = [pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, _is_text]
        return array.cast(next(kind for kind, check in zip(_TYPES, index, strict=True) if check(array.type)))
    except (ValueError, TypeError, pa.ArrowException):
        raise ValueError(f"metadata column {name!r} must hold numbers, texts or truth values, all alike") from None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


__all__ = ["CLASS", "Columns", "as_columns", "is_metadata", "joined", "matching", "values_at"]
