"""Pushing to the Hub: what belongs to a model goes up in one commit, after everything has been checked."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from idml_hf.configuration_idml import IDMLConfig
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.weight_files import sharded_names

from .card import is_generated, render_card, validate_card
from .commit import commit_files
from .published import Files, own_file, published
from .published_index import published_index
from .record import BASELINE_FILE, CARD_FILE, METRICS_FILE, PICTURES, RUN_FILE, RunRecord, public_files
from .remote_code import remote_code_files
from .sentence_transformers_config import sentence_transformers_files
from .trained_on import TRAINED_ON_FILE

logger = logging.get_logger(__name__)

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
SHARDS = f"{WEIGHTS}.index.json"
RECORDS = (METRICS_FILE, BASELINE_FILE, RUN_FILE, *PICTURES)
INDEX_FOLDER = "index"


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
    record: RunRecord | None = None,
) -> CommitInfo:
    """Push the folder of a run to a model repository, which is made if it is not there.

    Configuration, weights, image processor, model card, metrics, settings and pictures go up in one commit, so the
    repository is never half new. Secrets, the paths of this machine and what pictures hold beside their pixels are
    taken out; anything else in the folder stays where it is, checkpoints above all. Pushing again after an
    interruption sends only what has not arrived.

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
        record: what the card says; None: what the folder has recorded.

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
    files = collect_files(folder, repo_id, with_code=with_code, with_index=with_index, record=record)
    return _push(files, repo_id, private, token, revision, commit_message=commit_message or "Upload model")


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
                    shutil.copy(own_file(source / record, source), folder)
        files = collect_files(folder, repo_id, with_code=with_code, tags=tags or ())
        commit["commit_message"] = commit_message or f"Upload {type(model).__name__}"
        return _push(files, repo_id, bool(private), token, revision, **commit)


def collect_files(
    folder: Path,
    repo_id: str,
    *,
    with_code: bool = False,
    with_index: bool = False,
    tags: Sequence[str] = (),
    record: RunRecord | None = None,
) -> Files:
    """All that a push of `folder` would send: path in the repository -> file or content.

    Raises:
        FileNotFoundError, ValueError: if the folder does not hold a whole IDML model, or something in it that would
            be sent is a link or holds a secret.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}")
    for name in (CONFIG, *RECORDS, CARD_FILE):
        if os.path.lexists(folder / name):
            own_file(folder / name, folder)
    found = RunRecord.read(folder)
    record = record or found
    files = model_files(folder)
    if not record.is_classifier:
        files |= sentence_transformers_files()
    if with_code:
        files |= remote_code_files(folder)
    files |= {name: folder / name for name in found.pictures}
    files |= {path.name: path for path in folder.glob("LICEN[CS]E*") if not path.is_dir()}
    files |= public_files(folder)
    text = (folder / CARD_FILE).read_text(encoding="utf-8") if (folder / CARD_FILE).is_file() else None
    if text is None or is_generated(text):
        text = render_card(record, repo_id, repo_id.split("/")[-1], on_hub=True, remote_code=with_code, tags=tags)
    validate_card(text)
    files[CARD_FILE] = text.encode()
    files = published(files, folder)
    if with_index:
        index = published_index(folder / INDEX_FOLDER)
        files |= {f"{INDEX_FOLDER}/{name}": content for name, content in index.items()}
    return files


def model_files(folder: Path) -> Files:
    """Configuration, weights, image processor and hashes of training classes in a folder: name -> file.

    Raises:
        FileNotFoundError, ValueError: if the folder does not hold a whole IDML model.
    """
    IDMLConfig.from_pretrained(folder)
    files: Files = {CONFIG: folder / CONFIG, **_weights(folder)}
    if not (folder / PROCESSOR).is_file():
        raise FileNotFoundError(f"{folder} holds no image processor: it has no {PROCESSOR}")
    if (folder / TRAINED_ON_FILE).is_file():
        files[TRAINED_ON_FILE] = folder / TRAINED_ON_FILE
    return files | {PROCESSOR: folder / PROCESSOR}


def _weights(folder: Path) -> Files:
    sharded = (folder / SHARDS).is_file()
    names = sharded_names(folder / SHARDS) if sharded else [WEIGHTS]
    for name in names:
        if not (folder / name).is_file():
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            hint = f"; {pickled[0]} is a pickle, which is not pushed" if pickled else ""
            raise FileNotFoundError(f"{folder} holds no weights: it has no {name}{hint}")
        try:
            with safe_open(own_file(folder / name, folder), framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is not a whole safetensors file: {error}") from error
    return {name: folder / name for name in ([SHARDS] if sharded else []) + names}


def _same_weights(folder: Path, source: Path) -> bool:
    names = [path.name for path in folder.glob("*.safetensors")]
    return all((source / n).is_file() and filecmp.cmp(source / n, folder / n, shallow=False) for n in names)


def _push(
    files: Files, repo_id: str, private: bool, token: str | None, revision: str | None, **commit: Any
) -> CommitInfo:
    generated = is_generated(_text(files[CARD_FILE]))

    def keeps_card(there: str) -> bool:
        kept = generated and not is_generated(there)
        if kept:
            logger.warning(f"The model card of {repo_id} has been edited on the Hub, so it is kept")
        return kept

    return commit_files(
        files,
        repo_id,
        private=private,
        token=token,
        revision=revision,
        is_stale=lambda path: _is_stale(path, files),
        keeps_card=keeps_card,
        **commit,
    )


def _is_stale(path: str, files: Files) -> bool:
    """Whether a file on the Hub would go on being read as a part of what is pushed now."""
    if path.startswith(f"{INDEX_FOLDER}/"):
        return any(other.startswith(f"{INDEX_FOLDER}/") for other in files)
    return (
        path in (*RECORDS, TRAINED_ON_FILE)
        or re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", path) is not None
    )


def _text(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


__all__ = ["collect_files", "model_files", "push_folder", "push_model"]
