"""Indexes on the Hub: as data sets of their own, as Spaces, or in the folder `index` of their model's repository."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from idml_hf.hub.push import _clear_errors
from idml_hf.index_files import MANIFEST

INDEX_FOLDER = "index"
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
) -> CommitInfo:
    """Push an index to a data set repository, which is made if it is not there, in one commit.

    Args:
        save: writes the index, as others may have it, into a folder.
        repo_id: `org/name`.
        private: make a new repository private.
        token: Hub token; default: the one of the login or of HF_TOKEN.
        number: images in the index, for its card.
        model: what to call its model there.

    Raises:
        PermissionError: if the Hub does not accept the token, or the token may not write there.
        ConnectionError: if the Hub cannot be reached, or offline mode is on.
    """

    def write(folder: Path, repo_id: str) -> None:
        save(folder)
        card = _INDEX_CARD.format(name=_name(repo_id), number=number, model=model, repo_id=repo_id)
        (folder / "README.md").write_text(card, encoding="utf-8")

    return _push(write, repo_id, "dataset", private, token, "Upload index", delete=["data-*"])


def push_space(
    save: Callable[[Path], None], repo_id: str, private: bool = False, token: str | None = None, *, number: int
) -> CommitInfo:
    """Push an index as a Space: a page to search it, by [`~idml_hf.app.page.launch_app`].

    Arguments and errors are those of `push_index`.
    """

    def write(folder: Path, repo_id: str) -> None:
        save(folder / INDEX_FOLDER)
        for path, content in {"README.md": _SPACE_CARD, **_SPACE_FILES}.items():
            (folder / path).write_text(content.format(name=_name(repo_id), number=number), encoding="utf-8")

    return _push(write, repo_id, "space", private, token, "Upload app", delete=[f"{INDEX_FOLDER}/data-*"])


def _push(
    write: Callable[[Path, str], None],
    repo_id: str,
    kind: str,
    private: bool,
    token: str | None,
    message: str,
    delete: list[str],
) -> CommitInfo:
    api = HfApi(token=token, library_name="idml_hf")
    with _clear_errors(repo_id), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sdk = "gradio" if kind == "space" else None
        created = api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True, space_sdk=sdk)
        repo_id = created.repo_id
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise ValueError(f"{repo_id} exists already and is public: make it private first. Nothing was sent")
        write(folder, repo_id)
        if api.file_exists(repo_id, "README.md", repo_type=kind):
            (folder / "README.md").unlink()  # somebody may have made it their own
        return api.upload_folder(
            repo_id=repo_id,
            repo_type=kind,
            folder_path=folder,
            ignore_patterns=["*.lock"],
            delete_patterns=delete,
            commit_message=message,
        )


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


__all__ = ["HUB_ID", "pull_index", "push_index", "push_space"]
