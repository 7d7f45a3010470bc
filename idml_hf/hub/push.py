"""Pushing to the Hub: what belongs to a model goes up in one commit, after everything has been checked."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
)
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from idml_hf.configuration_idml import IDMLConfig
from idml_hf.image_processing_idml import IDMLImageProcessor

from .card import CARD_FILE, is_generated, render_card, validate_card
from .record import BASELINE_FILE, METRICS_FILE, PICTURES, RUN_FILE, RunRecord, public_files, read_if_there
from .remote_code import remote_code_files
from .sentence_transformers_config import sentence_transformers_files

logger = logging.get_logger(__name__)

Files = dict[str, Path | bytes]

WEIGHTS = "model.safetensors"
SHARDS = f"{WEIGHTS}.index.json"
RECORDS = (METRICS_FILE, BASELINE_FILE, RUN_FILE, *PICTURES)
INDEX_FOLDER = "index"
_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def push_folder(
    folder: str | Path,
    repo_id: str,
    private: bool = False,
    with_code: bool = False,
    token: str | None = None,
    *,
    with_index: bool = False,
    commit_message: str | None = None,
    revision: str | None = None,
) -> CommitInfo:
    """Push the folder of a run to a model repository, which is made if it is not there.

    Configuration, weights, image processor, model card, metrics, settings (without the paths of this machine) and
    pictures go up in one commit, so the repository is never half new. Anything else in the folder stays where it is,
    checkpoints above all. Pushing again after an interruption sends only what has not arrived.

    A card that somebody has made their own, here or on the Hub, is kept (see `write_model_card`); the one here wins.

    Args:
        folder: what `idml-hf train` or `demo` wrote, or any folder of `save_pretrained` with an image processor.
        repo_id: `org/name`.
        private: make the repository private.
        with_code: add the code that loads the model where idml_hf is not installed.
        token: Hub token; None: the one of the login or of HF_TOKEN.
        with_index: add the search index in the folder's `index/`.
        commit_message: message of the commit.
        revision: branch, which is made if it is not there; None: the main one.

    Returns:
        The commit: a string, its address, with more attributes.

    Raises:
        FileNotFoundError, ValueError: before anything is sent, for a folder that is not whole or not an IDML model.
        PermissionError: if the Hub does not accept the token, or the token may not write there.
        ConnectionError: if the Hub cannot be reached, or offline mode is on.

    Example:
        >>> push_folder("demo", "org/demo", private=True)  # doctest: +SKIP
    """
    folder = Path(folder)
    files = collect_files(folder, repo_id, with_code=with_code, with_index=with_index)
    return _push(files, repo_id, private, token, revision, commit_message=commit_message or f"Upload {folder.name}")


def push_model(
    model: PreTrainedModel,
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    max_shard_size: int | str = "50GB",
    tags: Sequence[str] = (),
    with_code: bool = False,
    **commit: Any,
) -> CommitInfo:
    """Push a model of this package that is in memory, with its image processor and a model card.

    If it was loaded from a run's folder and its weights are still the ones there, the results and pictures of that run
    go with it. If they have changed, nothing is claimed about them.

    Arguments and errors are those of `push_folder`; `max_shard_size` is that of `save_pretrained`, `tags` are added to
    the card, and `commit` takes further arguments of `HfApi.create_commit`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        IDMLImageProcessor.for_model(model).save_pretrained(folder)
        source = Path(model.name_or_path or os.devnull)
        if _same_weights(folder, source):
            for record in (*RECORDS, CARD_FILE):
                if (source / record).is_file():
                    shutil.copy(source / record, folder)
        files = collect_files(folder, repo_id, with_code=with_code, tags=tags or ())
        commit["commit_message"] = commit_message or f"Upload {type(model).__name__}"
        return _push(files, repo_id, bool(private), token, revision, **commit)


def collect_files(
    folder: Path, repo_id: str, *, with_code: bool = False, with_index: bool = False, tags: Sequence[str] = ()
) -> Files:
    """All that a push of `folder` would send: path in the repository -> file or content.

    Raises:
        FileNotFoundError, ValueError: if the folder does not hold a whole IDML model.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}")
    record = RunRecord.read(folder)
    IDMLConfig.from_pretrained(folder)
    files: Files = {"config.json": folder / "config.json", **_weights(folder)}
    if not (folder / "preprocessor_config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no image processor: it has no preprocessor_config.json")
    files["preprocessor_config.json"] = folder / "preprocessor_config.json"
    if not record.is_classifier:
        files |= sentence_transformers_files()
    if with_code:
        files |= remote_code_files(folder)
    files |= {path.name: path for path in [*(folder / name for name in record.pictures), *folder.glob("LICEN[CS]E*")]}
    files |= public_files(folder)
    if with_index:
        files |= _index(folder / INDEX_FOLDER)
    text = (folder / CARD_FILE).read_text(encoding="utf-8") if (folder / CARD_FILE).is_file() else None
    if text is None or is_generated(text):
        text = render_card(record, repo_id, repo_id.split("/")[-1], on_hub=True, remote_code=with_code, tags=tags)
    validate_card(text)
    files[CARD_FILE] = text.encode()
    return files


def _weights(folder: Path) -> Files:
    index = read_if_there(folder / SHARDS)
    names = sorted(set(index.get("weight_map", {}).values())) or [WEIGHTS]
    for name in names:
        if not (folder / name).is_file():
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            hint = f"; {pickled[0]} is a pickle, which is not pushed" if pickled else ""
            raise FileNotFoundError(f"{folder} holds no weights: it has no {name}{hint}")
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is not a whole safetensors file: {error}") from error
    return {name: folder / name for name in ([SHARDS] if index else []) + names}


def _index(folder: Path) -> Files:
    files: Files = {f"{INDEX_FOLDER}/{p.relative_to(folder).as_posix()}": p for p in folder.rglob("*") if p.is_file()}
    if not files:
        raise FileNotFoundError(f"There is no index in {folder}")
    return files


def _same_weights(folder: Path, source: Path) -> bool:
    names = [path.name for path in folder.glob("*.safetensors")]
    return all((source / n).is_file() and filecmp.cmp(source / n, folder / n, shallow=False) for n in names)


def _push(
    files: Files, repo_id: str, private: bool, token: str | None, revision: str | None, **commit: Any
) -> CommitInfo:
    api = HfApi(token=token, library_name="idml_hf")
    with _clear_errors(repo_id):
        repo_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise ValueError(f"{repo_id} exists already and is public: make it private first. Nothing was sent")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        remote = api.list_repo_files(repo_id, revision=revision)
        if CARD_FILE in remote and is_generated(_text(files[CARD_FILE])):
            there = api.hf_hub_download(repo_id, CARD_FILE, revision=revision)
            if not is_generated(Path(there).read_text(encoding="utf-8")):
                logger.warning(f"The model card of {repo_id} has been edited on the Hub, so it is kept")
                files = {path: content for path, content in files.items() if path != CARD_FILE}
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in files.items()]
        operations += [CommitOperationDelete(path) for path in remote if path not in files and _is_stale(path, files)]
        return api.create_commit(repo_id, operations, revision=revision, **commit)


def _is_stale(path: str, files: Files) -> bool:
    """Whether a file on the Hub would go on being read as a part of what is pushed now."""
    if path.startswith(f"{INDEX_FOLDER}/"):
        return any(other.startswith(f"{INDEX_FOLDER}/") for other in files)
    return path in RECORDS or re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", path) is not None


def _text(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


@contextmanager
def _clear_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line that says what to do."""
    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} cannot be the name of a repository: {error}") from error
    except OfflineModeIsEnabled as error:
        raise ConnectionError("Offline mode is on (HF_HUB_OFFLINE=1), so nothing can be pushed") from error
    except (HTTPError, RuntimeError) as error:
        # the client reports a large file that did not arrive as a RuntimeError caused by what happened
        reason = error.__cause__ if isinstance(error, RuntimeError) else error
        if isinstance(reason, HfHubHTTPError):
            _raise_refusal(reason, repo_id)
        if not isinstance(reason, HTTPError):
            raise
        raise ConnectionError(
            f"The Hub could not be reached: {reason}. What has arrived is kept: try again"
        ) from error


def _raise_refusal(error: HfHubHTTPError, repo_id: str) -> NoReturn:
    said = error.server_message or str(error).splitlines()[0]
    if error.response.status_code == 401:
        raise PermissionError(f"The Hub does not accept the token ({said}). {_LOGIN}") from error
    if error.response.status_code == 403:
        raise PermissionError(f"The token may not write to {repo_id}: {said}") from error
    raise ConnectionError(f"The Hub refused the push to {repo_id}: {said}. What has arrived is kept") from error


__all__ = ["collect_files", "push_folder", "push_model"]
