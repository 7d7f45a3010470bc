"""Indexes on the Hub: as data sets of their own, as Spaces, or in the folder `index` of their model's repository."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from idml_hf.confidence.calibration import Calibration
from idml_hf.confidence.verdict import below
from idml_hf.hub.commit import commit_files
from idml_hf.hub.published import Files, published
from idml_hf.hub.published_index import published_index
from idml_hf.hub.push import model_files
from idml_hf.hub.record import CARD_FILE
from idml_hf.index_files import MANIFEST

INDEX_FOLDER, MODEL_FOLDER = "index", "model"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

_INDEX_CARD = """---
tags:
- idml
- image-retrieval
---

# {name}

{number} images embedded by {model}, to be searched with images:

```python
from idml_hf import IDMLIndex

index = IDMLIndex.load("{repo_id}")
result = index.search("query.jpg", k=5)
```
"""

_CALIBRATION_CARD = """
## When it says "not sure"

{calibrated}.

| answers wrong, at most | queries answered | at best, in hindsight | an answer takes | more classes needed |
|---|---|---|---|---|
{rows}
"""

_SPACE_CARD = """---
title: {name}
sdk: gradio
app_file: app.py
tags:
- idml
- image-retrieval
---

Search {number} images with an image. It says when it is not sure.
"""

_SPACE_FILES = {
    "README.md": _SPACE_CARD,
    "app.py": 'from idml_hf.app import launch_app\n\nlaunch_app("index", host="0.0.0.0", title={name!r})\n',
    "requirements.txt": "idml-hf[app,cpu]\n",
}


def push_index(
    save: Callable[[Path], None],
    repo_id: str,
    private: bool = False,
    token: str | None = None,
    *,
    number: int,
    model: str,
    calibration: Calibration | None = None,
) -> CommitInfo:
    """Push an index to a data set repository, which is made if it is not there, in one commit.

    Args:
        save: writes the index, as others may have it, into a folder.
        repo_id: `org/name`.
        private: make a new repository private.
        token: Hub token; default: the one of the login or of HF_TOKEN.
        number: images in the index, for its card.
        model: what to call its model there.
        calibration: what it promises, for its card.

    Raises:
        PermissionError: if the Hub does not accept the token, or the token may not write there.
        ConnectionError: if the Hub cannot be reached, or offline mode is on.
        ValueError: if something in the index is private and cannot be taken out.
    """
    card = _INDEX_CARD.format(name=_name(repo_id), number=number, model=model, repo_id=repo_id)
    if calibration is not None:
        card += promises(calibration)
    with _whole_index(save) as files:
        files |= published({CARD_FILE: card.encode()}, Path())
        is_stale = re.compile(r"data-[0-9a-f]{12}/.*").fullmatch
        return _push(files, repo_id, "dataset", private, token, is_stale, "Upload index")


def push_space(
    save: Callable[[Path], None], repo_id: str, private: bool = False, token: str | None = None, *, number: int
) -> CommitInfo:
    """Push an index as a Space: a page to search it, by [`~idml_hf.app.page.launch_app`].

    Arguments and errors are those of `push_index`.
    """
    texts: Files = {
        path: content.format(name=_name(repo_id), number=number).encode() for path, content in _SPACE_FILES.items()
    }
    with _whole_index(save) as found:
        files = {f"{INDEX_FOLDER}/{path}": content for path, content in found.items()} | published(texts, Path())
        is_stale = re.compile(rf"{INDEX_FOLDER}/data-[0-9a-f]{{12}}/.*").fullmatch
        return _push(files, repo_id, "space", private, token, is_stale, "Upload app")


@contextmanager
def _whole_index(save: Callable[[Path], None]) -> Iterator[Files]:
    """The files of an index and of the model that goes with it, fit to be published."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder)
        files = published_index(folder)
        if (folder / MODEL_FOLDER).is_dir():
            model = model_files(folder / MODEL_FOLDER)
            files |= published({f"{MODEL_FOLDER}/{path}": content for path, content in model.items()}, folder)
        yield files


def _push(
    files: Files, repo_id: str, kind: str, private: bool, token: str | None, is_stale: Any, message: str
) -> CommitInfo:
    return commit_files(
        files,
        repo_id,
        kind=kind,
        private=private,
        token=token,
        is_stale=lambda path: is_stale(path) is not None,
        keeps_card=lambda text: True,  # somebody may have made it their own
        commit_message=message,
    )


def promises(calibration: Calibration) -> str:
    """The section of an index's card that says what its answers are worth."""
    rows = []
    for row in calibration.table():
        more = {None: "more would not help", 0: ""}.get(row["more_classes"], f"about {row['more_classes']}")
        bar = "nothing is answered" if row["bar"] is None else below(row["bar"])
        cells = f"{100 * row['promise']:g} %", f"{100 * row['answered']:.0f} %", f"{100 * row['hindsight']:.0f} %"
        rows.append(f"| {' | '.join((*cells, bar, more))} |")
    warnings = "".join(f"\n**Warning.** {warning}.\n" for warning in calibration.warnings)
    return _CALIBRATION_CARD.format(calibrated=calibration.summary(), rows="\n".join(rows)) + warnings


def _name(repo_id: str) -> str:
    return repo_id.split("/")[-1]


def pull_index(repo_id: str, revision: str | None = None, token: str | None = None) -> Path:
    """Download an index, with its model if that is in the same repository.

    Args:
        repo_id: `org/name` of a data set repository, or of a model repository with an index in it.
        revision: commit, tag or branch.
        token: Hub token; default: the one of the login or of HF_TOKEN.

    Returns:
        Folder of the index.

    Raises:
        FileNotFoundError: if there is no such repository, or no index in it.
    """
    options: dict[str, Any] = {
        "repo_id": repo_id,
        "revision": revision,
        "token": token,
        "ignore_patterns": ["*.bin", "*.pt", "*.pkl"],
    }
    try:
        try:
            folder = Path(snapshot_download(repo_type="dataset", **options))
        except (RepositoryNotFoundError, LocalEntryNotFoundError):
            folder = Path(snapshot_download(**options)) / INDEX_FOLDER
    except (RepositoryNotFoundError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(f"there is no folder {repo_id}, nor a repository of that name on the Hub") from error
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"the repository {repo_id} holds no index")
    return folder


__all__ = ["HUB_ID", "promises", "pull_index", "push_index", "push_space"]
