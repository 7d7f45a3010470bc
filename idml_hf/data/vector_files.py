"""Read embeddings that a user has: `.npy` files, parquet files, and what `idml-hf embed` wrote."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from idml_hf.errors import listing

from .parquet_files import parquet_splits
from .rows import BLOCK_ROWS, RowFiles
from .vector_set import VectorSet

EMBEDDING_COLUMNS = ("embedding", "semantic")
STORE_FILE = "features.json"
"""What a folder of stored features has, which are read by training alone."""
_PAGE_BYTES = 2**20
ID_COLUMNS = ("image", "path", "id")


def load_vectors(
    path: str | Path, labels: str | Path | None = None, group_column: str | None = None
) -> dict[str, VectorSet]:
    """Open embeddings, which stay on disk until rows are asked for.

    Parquet files have a column `embedding` (or `semantic`, as `idml-hf embed` writes it) of lists of one length, and
    may have `label` (integers or texts, -1 or nothing where unknown), `class` (the name of a label) and one of
    `image`, `path` and `id` (what a row is called). Their rows are copied to a temporary file, since a row of a
    parquet file cannot be read by itself.

    Args:
        path: a `.npy` file with a matrix of floats, a parquet file, or a folder of parquet files, `train.parquet` and
            `test.parquet` or those of one collection.
        labels: a `.npy` file with the class of each row, integers or texts, for a `.npy` file.
        group_column: column of a parquet file whose value groups rows.

    Returns:
        Split -> vectors; the only split of one collection is `all`.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: naming the file, and the column or the row that does not fit.
    """
    path = Path(path)
    if path.suffix == ".npy":
        if group_column is not None:
            raise ValueError(f"{path} has no columns: a parquet file has, for --group-column")
        return {"all": _of_matrix(path, None if labels is None else Path(labels))}
    if labels is not None:
        raise ValueError(f"labels in a file of their own are for a .npy file: {path} has a column for them")
    if (path / STORE_FILE).is_file():
        raise ValueError(f"{path} holds features of images, to which `idml-hf train --features` fits heads")
    if path.is_dir():
        splits = parquet_splits(path) or {"all": sorted(path.glob("*.parquet"))}
        if not any(splits.values()):
            raise FileNotFoundError(f"{path} holds no parquet files")
        return {split: _of_parquet(files, group_column) for split, files in splits.items()}
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}")
    return {"all": _of_parquet([path], group_column)}


def _of_matrix(path: Path, labels: Path | None) -> VectorSet:
    rows = RowFiles([path])
    if labels is None:
        return VectorSet.of(rows, None, ())
    try:
        known = np.load(labels, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {labels}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{labels} is no array that NumPy saved: {error}") from error
    if known.shape != (len(rows),) or known.dtype.kind not in "iuU":
        raise ValueError(
            f"{labels} must hold {len(rows)} integers or texts, one for each row of {path}; it holds {known.dtype} "
            f"{known.shape}"
        )
    numbers, names = _classes(pa.array(known), None)
    return VectorSet.of(rows, numbers, names)


def _of_parquet(files: Sequence[Path], group_column: str | None) -> VectorSet:
    tables, opened = [], []
    for file in files:
        try:
            # page by page: else whole groups of rows are kept, of which a file may have a single one
            opened.append(pq.ParquetFile(file, pre_buffer=False, buffer_size=_PAGE_BYTES))
            schema = opened[-1].schema_arrow
            column = next((name for name in EMBEDDING_COLUMNS if name in schema.names), None)
            if column is None:
                raise ValueError(f"{file} has no column {EMBEDDING_COLUMNS[0]!r}; it has {listing(schema.names)}")
            if group_column is not None and group_column not in schema.names:
                raise ValueError(f"{file} has no column {group_column!r}; it has {listing(schema.names)}")
            wanted = [name for name in ("label", "class", *ID_COLUMNS) if name in schema.names]
            wanted += [group_column] if group_column is not None and group_column not in wanted else []
            tables.append(opened[-1].read(columns=wanted))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file} cannot be read as parquet ({str(error).splitlines()[0]})") from error
    try:
        known = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(f"{files[0].parent}: the parquet files have columns of different types: {error}") from error
    rows = _copied(files, opened)
    columns: dict[str, Any] = {}
    name = next((name for name in ID_COLUMNS if name in known.column_names), None)
    if name is not None and (pa.types.is_string(known[name].type) or pa.types.is_integer(known[name].type)):
        texts = pc.fill_null(known[name].cast(pa.string()), "")
        columns["ids"] = pa.concat_arrays(texts.chunks or [pa.array([], pa.string())])
    if group_column is not None:
        groups = pc.fill_null(known[group_column].cast(pa.string()), "").to_numpy()
        columns |= {"groups": np.unique(groups, return_inverse=True)[1], "group_column": group_column}
    if "label" not in known.column_names and "class" not in known.column_names:
        return VectorSet.of(rows, None, (), **columns)
    labelled = known["label" if "label" in known.column_names else "class"]
    if not (pa.types.is_integer(labelled.type) or _is_text(labelled.type) or pa.types.is_null(labelled.type)):
        raise ValueError(f"{files[0]}: the column 'label' must hold integers or texts, not {labelled.type}")
    numbers, names = _classes(labelled, known["class"] if "class" in known.column_names else None)
    return VectorSet.of(rows, numbers, names, **columns)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _classes(values: Any, names: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number of each value in the order of the values, -1 for none, and the name of each number."""
    text = _is_text(values.type)
    absent = "" if text else -1
    plain = pc.fill_null(values.cast(pa.string() if text else pa.int64()), absent).to_numpy(zero_copy_only=False)
    if not text:
        plain = np.maximum(plain, -1)
    found, first, numbers = np.unique(plain, return_index=True, return_inverse=True)
    unknown = int(len(found) > 0 and found[0] == absent)
    if names is None or not _is_text(names.type):
        titles = [str(value) for value in found]
    else:
        titles = names.cast(pa.string()).take(pa.array(first)).to_pylist()
    return numbers.astype(np.int64) - unknown, tuple(str(title) for title in titles[unknown:])


def _copied(files: Sequence[Path], opened: Sequence[pq.ParquetFile]) -> RowFiles:
    """The embeddings of parquet files in a temporary `.npy` file, which goes with the rows."""
    number = sum(file.metadata.num_rows for file in opened)
    # open as long as the rows are in use
    copy = tempfile.NamedTemporaryFile(prefix="idml-vectors-", suffix=".npy")  # noqa: SIM115
    width = 0
    for path, file in zip(files, opened, strict=True):
        names = file.schema_arrow.names
        column = next(name for name in EMBEDDING_COLUMNS if name in names)
        row = 0
        for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=[column], use_threads=False):
            block = _matrix(batch.column(0), path, row)
            if not width:
                width = block.shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": (number, width)}
                np.lib.format.write_array_header_1_0(copy, header)
            if block.shape[1] != width:
                raise ValueError(f"{path}: the embedding of row {row} has {block.shape[1]} values, others {width}")
            if not np.isfinite(block).all():
                bad = row + int(np.flatnonzero(~np.isfinite(block).all(1))[0])
                raise ValueError(f"{path}: the embedding of row {bad} has NaN or infinite values")
            copy.write(block.astype("<f4").tobytes())
            row += len(block)
    if not width:
        raise ValueError(f"{files[0]} has no rows")
    copy.flush()
    return RowFiles([copy.name], keep=copy)


def _matrix(column: pa.Array, path: Path, start: int) -> np.ndarray:
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise ValueError(f"{path}: the column of embeddings must hold lists of numbers, not {kind}")
    lengths = pc.list_value_length(column)
    first = lengths[0].as_py()
    wrong = pc.fill_null(pc.not_equal(lengths, pa.scalar(first or 0, lengths.type)), True).to_numpy(
        zero_copy_only=False
    )
    if wrong.any() or not first:
        bad = int(np.flatnonzero(wrong)[0]) if wrong.any() else 0
        raise ValueError(f"{path}: the embedding of row {start + bad} is missing, or not as long as others")
    values = column.flatten()
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)) or values.null_count:
        raise ValueError(f"{path}: the column of embeddings must hold numbers, not {kind}, and none may be missing")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), first)


__all__ = ["STORE_FILE", "load_vectors"]
