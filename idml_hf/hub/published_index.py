"""A search index as others may have it: without the folders of its pictures, and without their metadata."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idml_hf.index_files import MANIFEST, StoredIndex, data_folder, file_entry, manifest_of, manifest_text, read_index
from idml_hf.picture_metadata import is_plain, without_metadata

from .private_data import without_folders, without_private_data
from .published import Files, own_file

THUMBNAILS, OFFSETS = "thumbnails", "thumbnail_offsets"


def published_index(folder: Path) -> Files:
    """The files of an index that belong to it, fit to be published: path within the index -> file or content.

    Locks, remains of earlier saves, the files of an approximate search, which is made anew where the index goes, and
    whatever else lies in the folder are none of them. Paths of pictures lose their
    folders where these are of this machine; small pictures lose all but their pixels. A model that is neither on the
    Hub nor beside the index is known by the hash of its weights only.

    Args:
        folder: What `IDMLIndex.save` wrote.

    Raises:
        FileNotFoundError: if there is no index.
        ValueError: naming a file that is damaged, a link, or elsewhere.
    """
    own_file(folder / MANIFEST, folder)
    stored = read_index(folder)
    data = data_folder(folder, stored.version)
    if data.is_symlink():
        raise ValueError(f"{data} is a link to another place: what it leads to is not published")
    arrays: dict[str, Path | bytes] = {}
    for name, array in stored.arrays.items():
        path = own_file(data / f"{name}.npy", folder)
        # what follows the array is no part of it
        arrays[path.name] = path if path.stat().st_size == _size(path) else _npy(array)
    arrays |= _thumbnails(stored)
    for name, table in stored.tables.items():
        own_file(data / f"{name}.parquet", folder)
        arrays[f"{name}.parquet"] = _parquet(table)
    files = {name: file_entry(content) for name, content in sorted(arrays.items())}
    manifest = manifest_of(StoredIndex(_manifest(stored.manifest), {}, {}), stored.version, files)
    return {
        MANIFEST: manifest_text(manifest).encode(),
        **{f"{data.name}/{name}": content for name, content in arrays.items()},
    }


def _manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    model = dict(manifest["model"])
    if not model["on_hub"] and model["location"] not in ("..", "model"):
        model["location"] = None
    return without_private_data(manifest) | {"model": model}


def _thumbnails(stored: StoredIndex) -> dict[str, bytes]:
    """The arrays of small pictures, if some of them hold more than pixels."""
    if THUMBNAILS not in stored.arrays:
        return {}
    content, offsets = stored.arrays[THUMBNAILS], stored.arrays[OFFSETS]
    pictures = [content[start:end].tobytes() for start, end in pairwise(offsets)]
    if all(map(is_plain, pictures)) and len(content) == (offsets[-1] if len(offsets) else 0):
        return {}
    pictures = [without_metadata(picture) for picture in pictures]
    lengths = np.cumsum([0, *map(len, pictures)], dtype=np.int64)
    joined = np.frombuffer(b"".join(pictures), dtype=np.uint8)
    return {f"{THUMBNAILS}.npy": _npy(joined), f"{OFFSETS}.npy": _npy(lengths)}


def _parquet(table: pa.Table) -> bytes:
    """A table without metadata, and without folders of a machine in any of its texts."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            change = _own_part if name == "path" else without_private_data
            texts = column.to_pylist()
            column = pa.array([None if text is None else change(text) for text in texts], type=column.type)
        columns[name] = column
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, use_dictionary=False)
    return buffer.getvalue()


def _own_part(path: str) -> str:
    """A path within its collection as it is; of a path of a machine the last part."""
    return without_folders(path) if path.startswith((".", "/", "~")) or "\\" in path else without_private_data(path)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _size(path: Path) -> int:
    """How many bytes the array in a file takes with its header."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return int(array.offset) + array.nbytes


__all__ = ["published_index"]
