"""An index on disk: `index.json`, which names everything else, and one folder of arrays.

A save writes a new folder of arrays beside the old one and then replaces `index.json` in a single step. Whatever stops
it on the way, a kill or a full disk, the old index stays whole; what was left half-written goes with the next save.
Only JSON, NumPy arrays without objects, and parquet are read, so a foreign index cannot run code.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "index.json"
FORMAT = 1
_ARRAYS = re.compile(r"data-[0-9a-f]{12}")
_NAME = re.compile(r"[a-z_]+\.(npy|parquet)")


class IndexFileError(ValueError):
    """The files of an index are incomplete, damaged or of another format."""


@dataclass(frozen=True)
class StoredIndex:
    """What an index folder holds.

    Args:
        manifest: the entries of `index.json` but `format`, `version` and `files`.
        arrays: by name, mapped from their files.
        tables: by name.
        version: changes with each save.
    """

    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tables: dict[str, pa.Table]
    version: str = ""


def write_index(folder: Path, stored: StoredIndex, expected_version: str | None = None) -> str:
    """Save into `folder`, which is made if needed; files of others in it stay.

    Args:
        folder: where to.
        stored: what to save; its `version` is ignored.
        expected_version: the version the folder must have if it holds an index; None replaces any.

    Returns:
        The new version.

    Raises:
        OSError: if it cannot be written; the index that was there is intact.
        RuntimeError: if another process is writing there or has changed the index since `expected_version`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            if expected_version is not None and (folder / MANIFEST).exists():
                found = _read_manifest(folder)["version"]
                if found != expected_version:
                    raise RuntimeError(
                        f"{folder} was changed by another process since it was loaded: load it again and repeat, or "
                        "save to another folder"
                    )
            return _write_locked(folder, stored)
    except filelock.Timeout:
        raise RuntimeError(f"another process is writing to {folder}: nothing was saved") from None


def _write_locked(folder: Path, stored: StoredIndex) -> str:
    version = uuid.uuid4().hex[:12]
    data = folder / f"data-{version}"
    temporary = folder / f"{MANIFEST}.tmp"
    try:
        data.mkdir()
        for name, array in stored.arrays.items():
            with open(data / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                _flush(file)
        for name, table in stored.tables.items():
            with open(data / f"{name}.parquet", "wb") as file:
                pq.write_table(table, file)
                _flush(file)
        files = {path.name: path.stat().st_size for path in sorted(data.iterdir())}
        manifest = {"format": FORMAT, "version": version, **stored.manifest, "files": files}
        with open(temporary, "w", encoding="utf-8") as text:
            json.dump(manifest, text, indent=1, ensure_ascii=False, allow_nan=False)
            _flush(text)
        os.replace(temporary, folder / MANIFEST)
    except OSError as error:
        shutil.rmtree(data, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        # NumPy says that it wrote less than it should have, but not why
        full = error.errno == errno.ENOSPC or (error.errno is None and "written" in str(error))
        reason = "the disk is full" if full else (error.strerror or error)
        raise OSError(f"cannot save the index to {folder} ({reason}): what was there before is intact") from error
    for path in folder.iterdir():
        if _ARRAYS.fullmatch(path.name) and path != data:
            shutil.rmtree(path, ignore_errors=True)
    return version


def read_index(folder: Path) -> StoredIndex:
    """Open an index; its arrays are mapped, not read, and changing them changes no file.

    Raises:
        FileNotFoundError: if `folder` holds no index.
        IndexFileError: naming the file that is missing, too short or damaged.
    """
    manifest = _read_manifest(folder)
    try:
        return _read_arrays(folder, manifest)
    except IndexFileError:
        # a save may have replaced the arrays since the manifest was read
        newer = _read_manifest(folder)
        if newer["version"] == manifest["version"]:
            raise
        return _read_arrays(folder, newer)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no index: there is no {MANIFEST}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        data, files = f"data-{manifest['version']}", manifest["files"]
        whole = _ARRAYS.fullmatch(data) and all(
            _NAME.fullmatch(name) and isinstance(size, int) for name, size in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexFileError(f"{path} is damaged or not of an index ({error!r})") from error
    if manifest.get("format") != FORMAT:
        raise IndexFileError(f"{path} has format {manifest.get('format')}; this version of idml_hf reads {FORMAT}")
    if not whole:
        raise IndexFileError(f"{path} is damaged: it names files that no index has")
    return manifest


def _read_arrays(folder: Path, manifest: Mapping[str, Any]) -> StoredIndex:
    data = folder / f"data-{manifest['version']}"
    arrays, tables = {}, {}
    for name, size in manifest["files"].items():
        path = data / name
        if not path.exists():
            raise IndexFileError(f"{path} is missing: the index is incomplete")
        if path.stat().st_size != size:
            raise IndexFileError(
                f"{path} has {path.stat().st_size} bytes instead of {size}: it was cut off or changed"
            )
        try:
            if path.suffix == ".npy":
                # Copy on write, since torch takes no array that cannot be written to; and as a plain array over the
                # mapping, since faiss takes no subclass once anybody has imported its torch wrappers.
                arrays[path.stem] = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
            else:
                tables[path.stem] = pq.read_table(path)
        except (ValueError, EOFError, pa.ArrowException) as error:
            raise IndexFileError(f"{path} is damaged ({error})") from error
    rest = {key: value for key, value in manifest.items() if key not in ("format", "version", "files")}
    return StoredIndex(rest, arrays, tables, manifest["version"])


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


__all__ = ["MANIFEST", "IndexFileError", "StoredIndex", "read_index", "write_index"]
