"""Finds what a name, path or table means - registered data set, folder, parquet, Hub id - and reads its splits."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets

from idml_hf import plugins
from idml_hf.errors import did_you_mean

from .annotation_files import ARCHIVES
from .folder_splits import read_folder
from .folders import has_images
from .hub_download import download_files, download_tables, named_tables
from .image_set import ANYWHERE, ImageSet
from .metadata_files import metadata_file
from .parquet_files import parquet_splits, read_parquet
from .registry import DATASETS, DatasetSpec
from .split_names import SPLIT_NAMES
from .tables import read_tables, trusted_folder

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NO_GROUPS = "none"

logger = logging.getLogger("idml_hf.data")


@dataclass(frozen=True)
class Source:
    """A data set as it is stored: its splits (`all` where there are none) and its registry entry, if it has one."""

    name: str
    splits: dict[str, ImageSet]
    spec: DatasetSpec | None = None
    embedded: bool = False


@dataclass(frozen=True)
class Columns:
    """Which columns to read, by name; None: the usual ones, or no groups. `need_labels`: see `read_tables`."""

    image_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    class_name_column: str | None = None
    need_labels: bool = True


def open_source(
    given: str | Path | datasets.Dataset | datasets.DatasetDict,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    need_labels: bool = True,
) -> Source:
    """Read the splits of a data set, with labels but without opening images. See `load_retrieval_data`.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: for an unknown name (with a suggestion), or data that are not laid out as they should be.
    """
    if isinstance(given, (datasets.Dataset, datasets.DatasetDict)):
        columns = _columns(None, image_column, label_column, group_column, need_labels)
        return _given_tables(given, columns)
    name = str(given)
    spec = DATASETS.get(name)
    load = None if spec is not None or Path(name).is_dir() else _plugin(name)
    if load is not None:
        return _loaded(name, load(), columns=_columns(None, image_column, label_column, group_column, need_labels))
    if spec is None and root is not None:
        raise ValueError(f"root is for registered data sets ({', '.join(DATASETS)}), not for {name!r}")
    columns = _columns(spec, image_column, label_column, group_column, need_labels)
    if spec is not None:
        embedded = root is None and spec.embedded is not None
        return Source(name, _registered(spec, root, revision, columns), spec, embedded)
    path = Path(name).expanduser()
    if path.is_dir():
        return Source(name, _folder(path, columns))
    if path.is_file():
        raise ValueError(f"{name} is a file: give a folder{_extract(path)}")
    if HUB_ID.fullmatch(name) and not Path(name).parent.is_dir():
        return Source(name, _hub(name, revision, columns))
    raise _not_found(name)


def _plugin(name: str) -> Callable[[], Any] | None:
    """The function of a module, or of an installed package, that loads a data set of this name."""
    if plugins.is_plugin_name(name):
        return plugins.imported(name)
    return plugins.installed(plugins.DATASETS, name)


def _loaded(name: str, loaded: Any, columns: Columns) -> Source:
    if isinstance(loaded, (datasets.Dataset, datasets.DatasetDict)):
        return replace(_given_tables(loaded, columns), name=name)
    splits = {"all": loaded.renumbered()} if isinstance(loaded, ImageSet) else loaded
    fits = isinstance(splits, Mapping) and splits and all(isinstance(part, ImageSet) for part in splits.values())
    if not fits or (set(splits) != {"all"} and not set(splits) <= set(SPLIT_NAMES)):
        raise ValueError(
            f"{name} must give an ImageSet, a mapping of train, validation and test to such sets, or a table of "
            f"datasets; it gives {type(loaded).__name__}"
        )
    return Source(name, dict(splits))


def _columns(
    spec: DatasetSpec | None, image: str | None, label: str | None, group: str | None, need_labels: bool
) -> Columns:
    group = group or (spec.group_column if spec else None)
    return Columns(
        image_column=image or (spec.image_column if spec else None),
        label_column=label or (spec.label_column if spec else None),
        group_column=None if group == NO_GROUPS else group,
        class_name_column=spec.class_name_column if spec else None,
        need_labels=need_labels,
    )


def _tables(
    tables: dict[str, datasets.Dataset], columns: Columns, name: str, folder: Path | None
) -> dict[str, ImageSet]:
    return read_tables(
        named_tables(tables, name) if len(tables) == 1 else tables,
        name,
        image_column=columns.image_column,
        label_column=columns.label_column,
        class_name_column=columns.class_name_column,
        group_column=columns.group_column,
        folder=folder,
        need_labels=columns.need_labels,
    )


def _given_tables(given: datasets.Dataset | datasets.DatasetDict, columns: Columns) -> Source:
    tables = {"all": given} if isinstance(given, datasets.Dataset) else named_tables(given, "the DatasetDict")
    folders = {trusted_folder(table) for table in tables.values()}
    name = next(iter(tables.values())).info.dataset_name or "the data set"
    return Source(name, _tables(tables, columns, name, folders.pop() if len(folders) == 1 else None))


def _registered(
    spec: DatasetSpec, root: str | Path | None, revision: str | None, columns: Columns
) -> dict[str, ImageSet]:
    if root is None and spec.embedded is not None:
        return _parquet(spec.embedded, columns, spec.name)
    root = spec.installed() if root is None else root
    if root is None:
        if spec.hub_id is None:
            here = f"; for the folder of that name here, write ./{spec.name}" if Path(spec.name).is_dir() else ""
            raise ValueError(f"{spec.name} needs root (--root): the folder with {spec.layout}{here}")
        try:
            return _hub(spec.hub_id, revision or spec.revision, columns, spec)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; if you have it, give root (--root): the folder with {spec.layout}"
            ) from error
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{spec.name}: root {folder} does not exist{_siblings(folder)}{_extract(folder)}")
    for candidate in (folder, folder / "data", folder / "full"):
        if parquet_splits(candidate):
            return _parquet(candidate, columns, spec.name)
    if spec.reader is None:
        raise FileNotFoundError(f"{spec.name}: {folder} has no {spec.layout}")
    if columns.group_column is not None:
        raise ValueError(f"{spec.name} has no column {columns.group_column!r} to group by in its official layout")
    return spec.reader(folder)


def _folder(path: Path, columns: Columns) -> dict[str, ImageSet]:
    if parquet_splits(path) or (any(path.glob("*.parquet")) and not has_images(path) and metadata_file(path) is None):
        return _parquet(path, columns, str(path))
    return read_folder(path, columns.label_column, columns.group_column, columns.need_labels)


def _parquet(folder: Path, columns: Columns, name: str) -> dict[str, ImageSet]:
    files = parquet_splits(folder) or {"all": sorted(folder.glob("*.parquet"))}
    tables = {split: read_parquet(paths) for split, paths in files.items()}
    return _tables(tables, columns, name, folder)


def _hub(hub_id: str, revision: str | None, columns: Columns, spec: DatasetSpec | None = None) -> dict[str, ImageSet]:
    if spec is not None and spec.hub_files is not None:
        return _tables(download_files(hub_id, revision, spec.hub_files), columns, hub_id, None)
    tables = download_tables(hub_id, revision)
    # of a repository of pictures `datasets` lists those that it has downloaded itself
    pictures = all(table.info.builder_name == "imagefolder" for table in tables.values())
    return _tables(tables, columns, hub_id, ANYWHERE if pictures else None)


def _not_found(name: str) -> Exception:
    if "/" in name or "\\" in name or name.startswith("."):
        return FileNotFoundError(f"{name} does not exist{_siblings(Path(name).expanduser())}")
    suggestion = did_you_mean(name.lower(), [*DATASETS, *_folders(Path())])
    return ValueError(f"unknown data set {name!r}: no folder, and none of {', '.join(DATASETS)}.{suggestion}")


def _siblings(path: Path) -> str:
    suggestion = did_you_mean(path.name, _folders(path.parent))
    return f".{suggestion}" if suggestion else ""


def _folders(parent: Path) -> list[str]:
    return [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []


def _extract(path: Path) -> str:
    return "; archives are not opened, extract it first" if path.suffix.lower() in ARCHIVES else ""
