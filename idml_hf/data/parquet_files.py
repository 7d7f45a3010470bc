"""Parquet files: which there are, and their content as a table, whose size may be no multiple of what lies on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .split_names import one_a_split, split_of

IN_MEMORY_BYTES = 256 * 2**20
# Images are compressed already. What unpacks to so many times its size on disk is made to fill memory or disk.
_MAX_EXPANSION, _FREE_BYTES = 50, 2**28
_ROWS, _BATCH_BYTES = 512, 2**28


def parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """Split -> its files: `train.parquet`, or shards `train-*.parquet`.

    Raises:
        ValueError: if two names stand for one split.
    """
    named: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        name = path.stem.split("-")[0]
        if split_of(name) is not None:
            named.setdefault(name, []).append(path)
    return {split: named[name] for split, name in one_a_split(named, str(folder)).items()}


def read_parquet(paths: Sequence[Path]) -> datasets.Dataset:
    """Parquet files as one table; small ones are read into memory, large ones through the cache of `datasets`.

    Raises:
        ValueError: naming a file that is no parquet file, or that unpacks to far more than its size.
    """
    for path in paths:
        limit = _MAX_EXPANSION * path.stat().st_size + _FREE_BYTES
        with _open(path) as file:
            metadata = file.metadata
            stated = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
            if max(stated, 8 * metadata.num_rows) > limit:
                raise ValueError(_bomb(path))
    if sum(path.stat().st_size for path in paths) > IN_MEMORY_BYTES:
        return datasets.Dataset.from_parquet([str(path) for path in paths])
    return datasets.concatenate_datasets([datasets.Dataset(_read(path)) for path in paths])


def _read(path: Path) -> pa.Table:
    limit, size = _MAX_EXPANSION * path.stat().st_size + _FREE_BYTES, 0
    batches = []
    with _open(path) as file:
        try:
            # a little at a time: one value that is stored once may stand in millions of rows
            rows = max(1, min(_ROWS, _BATCH_BYTES // _largest_shared_value(file, path)))
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                size += batch.nbytes
                if size > limit:
                    raise ValueError(_bomb(path))
                batches.append(batch)
            return pa.Table.from_batches(batches, file.schema_arrow)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(_unreadable(path, error)) from error


def _largest_shared_value(file: pq.ParquetFile, path: Path) -> int:
    """Bytes that a value may have which is stored once and stands in many rows: at most those of its dictionary."""
    largest = 1
    with path.open("rb") as content:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            for chunk in (group.column(i) for i in range(group.num_columns)):
                if any("DELTA" in encoding for encoding in chunk.encodings):
                    largest = max(largest, chunk.total_uncompressed_size)
                elif chunk.has_dictionary_page:
                    content.seek(chunk.dictionary_page_offset)
                    largest = max(largest, _page_size(content.read(16)))
    return largest


def _page_size(header: bytes) -> int:
    """Size of a page when unpacked, the second field of its header (Thrift's compact protocol)."""
    numbers, at = [], 0
    for _ in range(2):
        at += 1  # the field's type, a byte
        number = shift = 0
        while at < len(header):
            number |= (header[at] & 0x7F) << shift
            shift += 7
            at += 1
            if header[at - 1] < 0x80:
                break
        numbers.append(number >> 1)
    return max(1, numbers[1])


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    try:
        return pq.ParquetFile(path)
    except Exception as error:
        raise ValueError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} cannot be read as parquet ({(str(error) or type(error).__name__).splitlines()[0]})"


def _bomb(path: Path) -> str:
    return f"{path} unpacks to more than {_MAX_EXPANSION} times its size; refused, it may be made to fill the memory"
