"""Finds what a name or path means - registered data set, folder, parquet files, Hub id - and reads its splits."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets.naming import camelcase_to_snakecase
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from .folders import has_class_folders, read_class_folders, read_flat_folder
from .image_set import ImageSet
from .metadata_files import METADATA, read_csv_folder
from .registry import DATASETS, DatasetSpec
from .tables import read_parquet, read_tables

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
NO_GROUPS = "none"
Columns = dict[str, str | None]

logger = logging.getLogger("idml_hf.data")


@dataclass(frozen=True)
class Source:
    """A data set as it is stored: its splits (`all` where there are none) and its registry entry, if it has one."""

    name: str
    splits: dict[str, ImageSet]
    spec: DatasetSpec | None = None
    embedded: bool = False


def open_source(
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
) -> Source:
    """Read the splits of a data set, with labels but without opening images. See `load_retrieval_data`.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: for an unknown name (with a suggestion), or data that are not laid out as they should be.
    """
    name = str(name_or_path)
    spec = DATASETS.get(name)
    if spec is None and root is not None:
        raise ValueError(f"root is for registered data sets ({', '.join(DATASETS)}), not for {name!r}")
    columns = _columns(spec, image_column, label_column, group_column)
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


def _columns(spec: DatasetSpec | None, image: str | None, label: str | None, group: str | None) -> Columns:
    group = group or (spec.group_column if spec else None)
    return {
        "image_column": image or (spec.image_column if spec else None),
        "label_column": label or (spec.label_column if spec else None),
        "group_column": None if group == NO_GROUPS else group,
        "class_name_column": spec.class_name_column if spec else None,
    }


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
            return _hub(spec.hub_id, revision or spec.revision, columns, spec.hub_files)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; if you have it, give root (--root): the folder with {spec.layout}"
            ) from error
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{spec.name}: root {folder} does not exist{_siblings(folder)}{_extract(folder)}")
    for candidate in (folder, folder / "data", folder / "full"):
        if _parquet_files(candidate):
            return _parquet(candidate, columns, spec.name)
    if spec.reader is None:
        raise FileNotFoundError(f"{spec.name}: {folder} has no {spec.layout}")
    if columns["group_column"] is not None:
        raise ValueError(f"{spec.name} has no column {columns['group_column']!r} to group by in its official layout")
    return spec.reader(folder)


def _folder(path: Path, columns: Columns) -> dict[str, ImageSet]:
    if _parquet_files(path):
        return _parquet(path, columns, str(path))
    splits = {
        split: path / name
        for split, names in SPLIT_NAMES.items()
        for name in names
        if (path / name).is_dir() and ((path / name / METADATA).is_file() or has_class_folders(path / name))
    }
    if "train" in splits and len(splits) > 1:
        return {split: _collection(folder, columns) for split, folder in splits.items()}
    return {"all": _collection(path, columns)}


def _collection(folder: Path, columns: Columns) -> ImageSet:
    if (folder / METADATA).is_file():
        return read_csv_folder(folder, columns["label_column"], columns["group_column"])
    if columns["group_column"] is not None:
        raise ValueError(f"{folder} has no {METADATA} with a column {columns['group_column']!r} to group images by")
    if has_class_folders(folder):
        return read_class_folders(folder)
    images = read_flat_folder(folder)
    if not len(images):
        raise ValueError(f"{folder} has no images")
    return images


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Split -> its files: `train.parquet`, or shards `train-*.parquet`."""
    found: dict[str, list[Path]] = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            paths = sorted([*folder.glob(f"{name}.parquet"), *folder.glob(f"{name}-*.parquet")])
            if paths:
                found[split] = paths
    return found


def _parquet(folder: Path, columns: Columns, name: str) -> dict[str, ImageSet]:
    tables = {split: read_parquet(paths) for split, paths in _parquet_files(folder).items()}
    return read_tables(_only_split_as_all(tables), name, **columns)


def _only_split_as_all(tables: dict[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    return {"all": next(iter(tables.values()))} if len(tables) == 1 else tables


def _hub(
    hub_id: str, revision: str | None, columns: Columns, files: Mapping[str, str] | None = None
) -> dict[str, ImageSet]:
    tables = _hub_dataset(hub_id, revision) if files is None else _hub_files(hub_id, revision, files)
    return read_tables(_only_split_as_all(tables), hub_id, **columns)


def _hub_dataset(hub_id: str, revision: str | None) -> dict[str, datasets.Dataset]:
    owner, name = hub_id.split("/")
    cached = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    problem = _why_unreachable(hub_id, revision)
    if problem is not None and not cached.exists():
        raise _unreachable(hub_id, problem) from problem
    try:
        loaded = datasets.load_dataset(hub_id, revision=revision)
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        raise ValueError(
            f"{hub_id} is read by a script in its repository, which `datasets` refuses to run; "
            "look for a copy in parquet, or point --root or a path at the images"
        ) from error
    except (datasets.exceptions.DatasetNotFoundError, OSError, ValueError) as error:
        raise _unreachable(hub_id, error) from error
    tables = {split: loaded[name] for split, names in SPLIT_NAMES.items() for name in names if name in loaded}
    if not tables:
        raise ValueError(f"{hub_id} has no split train, validation or test; its splits: {', '.join(loaded)}")
    return tables


def _hub_files(hub_id: str, revision: str | None, files: Mapping[str, str]) -> dict[str, datasets.Dataset]:
    problem = _why_unreachable(hub_id, revision)
    try:
        folder = snapshot_download(
            hub_id,
            repo_type="dataset",
            revision=revision,
            allow_patterns=list(files.values()),
            local_files_only=problem is not None,
        )
    except Exception as error:
        raise _unreachable(hub_id, problem or error) from error
    found = {split: sorted(Path(folder).glob(pattern)) for split, pattern in files.items()}
    for split, paths in found.items():
        if not paths:
            raise ValueError(f"{hub_id} has no files {files[split]}: another version than the one expected")
    return {split: read_parquet(paths) for split, paths in found.items()}


def _why_unreachable(hub_id: str, revision: str | None) -> Exception | None:
    """None if the Hub answers, else why not, at once: its client would try again and again for half a minute."""
    try:
        HfApi().dataset_info(hub_id, revision=revision or "main", timeout=10)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _unreachable(hub_id, error) from error
    except Exception as error:
        return error
    return None


def _unreachable(hub_id: str, error: Exception) -> FileNotFoundError:
    if isinstance(error, RevisionNotFoundError):
        reason = "it has no such revision"
    elif isinstance(error, RepositoryNotFoundError):
        reason = "there is no such data set, or it is private or gated (log in by `hf auth login`)"
    else:
        reason = " ".join(str(error).split())
    return FileNotFoundError(
        f"{hub_id}: no such folder here, and not to be had from the Hub: {reason}{_suggestion(hub_id)}"
    )


def _not_found(name: str) -> Exception:
    if "/" in name or "\\" in name or name.startswith("."):
        return FileNotFoundError(f"{name} does not exist{_siblings(Path(name).expanduser())}")
    return ValueError(f"unknown data set {name!r}: no folder, and none of {', '.join(DATASETS)}{_suggestion(name)}")


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    return f"; did you mean {near[0]!r}?" if near else _siblings(Path(name))


def _siblings(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return ""
    near = difflib.get_close_matches(path.name, [entry.name for entry in parent.iterdir() if entry.is_dir()], n=1)
    return f"; did you mean {str(parent / near[0])!r}?" if near else ""


def _extract(path: Path) -> str:
    archive = path.suffix.lower() in {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"}
    return "; archives are not opened, extract it first" if archive else ""
