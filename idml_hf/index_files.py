"""An index on disk: `index.json`, which names everything else, and one folder of arrays.

A save writes a new folder of arrays beside the old one and then replaces `index.json` in a single step. Whatever stops
it on the way, a kill or a full disk, the old index stays whole; what was left half-written goes with the next save.
Whoever reads meanwhile gets the old index or the new one.

`index.json` holds the size and the checksum of every file, and its own: a flipped bit anywhere is said when the index
is loaded. Checksums tell damage, not malice; against that, only JSON, NumPy arrays without objects, and parquet are
read here, so a foreign index cannot run code, and what is read is bounded by what the files hold.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from .files import replacing

MANIFEST = "index.json"
FORMAT = 2
FORMATS = (1, 2)  # the first has sizes, but no checksums

MAX_MANIFEST_BYTES = 2**28
_RETRIES_SECONDS = 20.0  # for how long a reader goes on beside writers who save again and again
_DATA = re.compile(r"data-[0-9a-f]{12}")
_REMAINS = re.compile(r"\.index\.[0-9a-f]{12}\.json|index\.json\.tmp")
_NAME = re.compile(r"[a-z0-9_]{1,100}\.(npy|parquet|faiss)")
_CODECS = ("UNCOMPRESSED", "SNAPPY")  # others may hold thousands of times what they take on disk
_MAX_TABLE = 2**26, 2**13  # bytes of a table, and of each of its rows
_CHUNK = 2**22


class IndexFileError(ValueError):
    """The files of an index are incomplete, damaged or of another format."""


@dataclass(frozen=True)
class StoredIndex:
    """What an index folder holds.

    Args:
        manifest: the entries of `index.json` but `format`, `version`, `files` and `checksum`.
        arrays: by name, mapped from their files.
        tables: by name.
        version: changes with each save.
        files: other files by name, which `read_index` has not looked into.
    """

    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tables: dict[str, pa.Table]
    version: str = ""
    files: dict[str, Path] = field(default_factory=dict)


def data_folder(folder: Path, version: str) -> Path:
    """Where an index keeps all but `index.json`."""
    return folder / f"data-{version}"


def file_entry(content: Path | bytes) -> dict[str, Any]:
    """What `index.json` says of a file, or of what will be one: its size and its checksum."""
    digest = xxhash.xxh3_128()
    size = 0
    if isinstance(content, bytes):
        digest.update(content)
        size = len(content)
    else:
        with open(content, "rb") as file:
            while part := file.read(_CHUNK):
                digest.update(part)
                size += len(part)
    return {"bytes": size, "xxh3_128": digest.hexdigest()}


def manifest_of(stored: StoredIndex, version: str, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All that `index.json` says; `files` are the entries of `file_entry` by file name.

    Raises:
        ValueError: if there is NaN in it, which JSON does not have, or it is larger than what is read.
    """
    manifest = {"format": FORMAT, "version": version, **stored.manifest, "files": dict(files)}
    manifest["checksum"] = _checksum(manifest)
    if len(manifest_text(manifest)) > MAX_MANIFEST_BYTES:
        raise ValueError("the index has too many or too long class names to be saved")
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The content of `index.json`."""
    return json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)


def write_index(
    folder: Path,
    stored: StoredIndex,
    expected_version: str | None = None,
    *,
    overwrite: bool = True,
    writers: Mapping[str, Callable[[Path], None]] | None = None,
) -> str:
    """Save into `folder`, which is made if needed; files of others in it stay.

    Args:
        folder: where to.
        stored: what to save; its `version` and `files` are ignored.
        expected_version: the version the folder must have if it holds an index; None: this index has not been there.
        overwrite: whether an index that this one was not loaded from may be replaced.
        writers: what writes further files, by name.

    Returns:
        The new version.

    Raises:
        FileExistsError: if there is another index, and `overwrite` is False.
        OSError: if it cannot be written; the index that was there is intact.
        RuntimeError: if another process is writing there or has changed the index since `expected_version`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            if (folder / MANIFEST).exists():
                if expected_version is None and not overwrite:
                    raise FileExistsError(f"{folder} holds an index already: give overwrite=True to replace it")
                if expected_version is not None and _read_manifest(folder)["version"] != expected_version:
                    raise RuntimeError(
                        f"{folder} was changed by another process since it was loaded: load it again and repeat, or "
                        "save to another folder"
                    )
            return _write_locked(folder, stored, writers or {})
    except filelock.Timeout:
        raise RuntimeError(f"another process is writing to {folder}: nothing was saved") from None


def _write_locked(folder: Path, stored: StoredIndex, writers: Mapping[str, Callable[[Path], None]]) -> str:
    version = uuid.uuid4().hex[:12]
    data = data_folder(folder, version)
    try:
        data.mkdir()
        for name, array in stored.arrays.items():
            with open(data / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
        for name, table in stored.tables.items():
            with open(data / f"{name}.parquet", "wb") as file:
                pq.write_table(table, file, use_dictionary=False)
        for name, write in writers.items():
            write(data / name)
        files = {}
        for path in sorted(data.iterdir()):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            files[path.name] = file_entry(path)
        with replacing(folder / MANIFEST) as part:
            part.write_text(manifest_text(manifest_of(stored, version, files)), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(data, ignore_errors=True)
        # NumPy says that it wrote less than it should have, but not why
        full = error.errno == errno.ENOSPC or (error.errno is None and "written" in str(error))
        reason = "the disk is full" if full else (error.strerror or error)
        raise OSError(f"cannot save the index to {folder} ({reason}): what was there before is intact") from error
    except BaseException:
        shutil.rmtree(data, ignore_errors=True)
        raise
    for path in folder.iterdir():
        if _DATA.fullmatch(path.name) and path != data:
            shutil.rmtree(path, ignore_errors=True)
        elif _REMAINS.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return version


def read_index(folder: Path, *, verify: bool = True) -> StoredIndex:
    """Open an index; its arrays are mapped, not read, and changing them changes no file.

    Args:
        folder: what `write_index` wrote.
        verify: whether to compare all files with their checksums, which reads them once.

    Raises:
        FileNotFoundError: if `folder` holds no index.
        IndexFileError: naming the file that is missing, too short or damaged.
    """
    until = time.monotonic() + _RETRIES_SECONDS
    manifest = _read_manifest(folder)
    while True:
        try:
            return _read_files(folder, manifest, verify)
        except IndexFileError:
            # a save may have replaced the arrays since the manifest was read
            newer = _read_manifest(folder)
            if newer["version"] == manifest["version"] or time.monotonic() > until:
                raise
            manifest = newer


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no index: there is no {MANIFEST}")
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read by this user") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise IndexFileError(f"{path} is too large to be of an index")
    try:
        text = content.decode("utf-8")
        manifest = json.loads(text)
        whole = _DATA.fullmatch(f"data-{manifest['version']}") and all(map(_NAME.fullmatch, manifest["files"]))
        sizes = [size if isinstance(size, int) else size["bytes"] for size in manifest["files"].values()]
        whole = whole and all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in sizes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexFileError(f"{path} is damaged or not of an index ({type(error).__name__}: {error})") from error
    if manifest.get("format") not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise IndexFileError(f"{path} has format {manifest.get('format')!r}; this version of idml_hf reads {known}")
    if not whole:
        raise IndexFileError(f"{path} is damaged: it names files that no index has")
    if manifest["format"] > 1:
        try:
            if manifest["checksum"] != _checksum(manifest) or text != manifest_text(manifest):
                raise ValueError("its checksum is another")
            if not all(isinstance(entry["xxh3_128"], str) for entry in manifest["files"].values()):
                raise ValueError("a checksum is missing")
        except (ValueError, KeyError, TypeError, UnicodeError) as error:
            raise IndexFileError(f"{path} is damaged ({error})") from error
    return manifest


def _checksum(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return xxhash.xxh3_128_hexdigest(manifest_text(rest).encode())


def _read_files(folder: Path, manifest: Mapping[str, Any], verify: bool) -> StoredIndex:
    data = data_folder(folder, manifest["version"])
    arrays, tables, files = {}, {}, {}
    for name, entry in manifest["files"].items():
        path = data / name
        try:
            _check_file(path, entry, verify)
            if path.suffix == ".npy":
                arrays[path.stem] = _mapped(path)
            elif path.suffix == ".parquet":
                tables[path.stem] = _read_table(path, manifest.get("images"))
            else:
                files[name] = path
        except FileNotFoundError:
            raise IndexFileError(f"{path} is missing: the index is incomplete") from None
        except IndexFileError:
            raise
        except Exception as error:  # whatever the readers stumble over in a file that may come from anywhere
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise IndexFileError(f"{path} is damaged ({reason})") from error
    rest = {key: value for key, value in manifest.items() if key not in ("format", "version", "files", "checksum")}
    return StoredIndex(rest, arrays, tables, manifest["version"], files)


def _check_file(path: Path, entry: int | Mapping[str, Any], verify: bool) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise IndexFileError(f"{path} is no ordinary file")
    size = entry if isinstance(entry, int) else entry["bytes"]
    if found.st_size != size:
        raise IndexFileError(f"{path} has {found.st_size} bytes instead of {size}: it was cut off or changed")
    if verify and not isinstance(entry, int) and file_entry(path) != dict(entry):
        raise IndexFileError(f"{path} is damaged: its checksum is another")


def _mapped(path: Path) -> np.ndarray:
    """An array on its file.

    Copy on write, since torch takes no array that cannot be written to; and as a plain array over the mapping, since
    faiss takes no subclass once anybody has imported its torch wrappers.
    """
    array = np.asarray(np.lib.format.open_memmap(path, mode="c"))
    if not array.flags.c_contiguous or array.dtype.byteorder == ">":
        raise ValueError("it is not in the order of this machine")
    return array


def _read_table(path: Path, rows: Any) -> pa.Table:
    """A table of `rows` rows, read in parts, so that one that holds more than it should is never held as a whole."""
    with pq.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
    if metadata.num_rows != rows:
        raise ValueError(f"it has {metadata.num_rows} rows, the index {rows} images")
    texts = set()
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if column.compression not in _CODECS or any("DELTA" in name for name in column.encodings):
                raise ValueError(f"it is compressed by {column.compression}, {', '.join(column.encodings)}")
            if column.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in name for name in column.encodings):
                texts.add(column.path_in_schema)
    # Texts that are repeated stay one text each until it is known how much they take. Those that are not are read in
    # smaller parts, in case that the file says one thing and does another.
    part = 2**16 if texts else int(np.clip(2**31 // max(path.stat().st_size, 1), 512, 2**16))
    size, batches = 0, []
    with pq.ParquetFile(path, read_dictionary=sorted(texts)) as file:
        for batch in file.iter_batches(batch_size=part):
            size += sum(_bytes_of(column) for column in batch.columns)
            if size > _MAX_TABLE[0] + _MAX_TABLE[1] * rows:
                raise ValueError("its texts are too long")
            batches.append(batch.cast(schema))
    return pa.Table.from_batches(batches, schema)


def _bytes_of(column: pa.Array) -> int:
    """Bytes that a column takes once each of its values stands for itself."""
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    known = column.dictionary
    wide = pa.types.is_large_string(known.type) or pa.types.is_large_binary(known.type)
    ends = np.frombuffer(known.buffers()[1], np.int64 if wide else np.int32)[known.offset :]
    indices = column.indices.drop_null().to_numpy()
    return int((ends[indices + 1] - ends[indices]).sum())


__all__ = [
    "MANIFEST",
    "IndexFileError",
    "StoredIndex",
    "data_folder",
    "file_entry",
    "manifest_of",
    "manifest_text",
    "read_index",
    "write_index",
]
