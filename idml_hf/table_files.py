"""Tables as files that others read: CSV, Parquet or JSON, as the name says."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import one_of
from .files import replacing, write_json

FORMATS = (".csv", ".parquet", ".json")


def table_format(path: str | Path) -> str:
    """The suffix of a table's file.

    Raises:
        ValueError: if it is none of `FORMATS`.

    Example:
        >>> table_format("results.CSV")
        '.csv'
    """
    suffix = Path(path).suffix.lower()
    try:
        return one_of("kind of table", suffix, FORMATS)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a table in one step; as JSON it is a list with an object for each row.

    Raises:
        ValueError: if the name ends on none of `FORMATS`.
        OSError: if it cannot be written.
    """
    suffix = table_format(path)
    if suffix == ".json":
        write_json(path, table.to_pylist())
        return
    with replacing(path) as part:
        if suffix == ".parquet":
            pq.write_table(table, part)
        else:
            with part.open("w", newline="", encoding="utf-8") as file:
                write_csv(file, table)


def write_csv(file: TextIO, table: pa.Table, delimiter: str = ",") -> None:
    """Write a table's names and rows as text; a list takes a column for each of its numbers, as `semantic_0`."""
    names: list[str] = []
    for field in table.schema:
        size = field.type.list_size if pa.types.is_fixed_size_list(field.type) else None
        names += [field.name] if size is None else [f"{field.name}_{at}" for at in range(size)]
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    for batch in table.to_batches(max_chunksize=2**10):
        for row in batch.to_pylist():
            writer.writerow(_cells(row.values()))


def _cells(values: Any) -> Sequence[Any]:
    return [cell for value in values for cell in (value if isinstance(value, list) else [value])]


__all__ = ["FORMATS", "table_format", "write_csv", "write_table"]
