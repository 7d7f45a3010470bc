"""Data sets of the Hub as tables, and why one cannot be had, at once and in a line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import datasets
from datasets.naming import camelcase_to_snakecase
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from .parquet_files import read_parquet
from .split_names import one_a_split


def download_tables(hub_id: str, revision: str | None) -> dict[str, datasets.Dataset]:
    """Split -> table of a repository that `datasets` can read.

    Raises:
        FileNotFoundError: if it cannot be had.
        ValueError: if it is read by a script of its own, or has no split that is used here.
    """
    owner, name = hub_id.split("/")
    cached = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    problem = why_unreachable(hub_id, revision)
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
    return named_tables(loaded, hub_id)


def named_tables(tables: Mapping[str, datasets.Dataset], name: str) -> dict[str, datasets.Dataset]:
    """Train, validation and test of several tables; a single one, whatever it is called, is `all`.

    Raises:
        ValueError: if there are several, and none is called so.
    """
    if len(tables) == 1:
        return {"all": next(iter(tables.values()))}
    found = {split: tables[stated] for split, stated in one_a_split(tables, name).items()}
    if not found:
        raise ValueError(f"{name} has no split train, validation or test; its splits: {', '.join(tables)}")
    return {"all": next(iter(found.values()))} if len(found) == 1 else found


def download_files(hub_id: str, revision: str | None, files: Mapping[str, str]) -> dict[str, datasets.Dataset]:
    """Split -> table of the parquet files that match `files`, split -> pattern, where a repository holds more.

    Raises:
        FileNotFoundError: if they cannot be had.
        ValueError: if a split has no file.
    """
    problem = why_unreachable(hub_id, revision)
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


def why_unreachable(hub_id: str, revision: str | None) -> Exception | None:
    """None if the Hub answers, else why not, at once: its client would try again and again for half a minute.

    Raises:
        FileNotFoundError: if the Hub says that there is no such repository or revision.
    """
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
    return FileNotFoundError(f"{hub_id}: no such folder here, and not to be had from the Hub: {reason}")
