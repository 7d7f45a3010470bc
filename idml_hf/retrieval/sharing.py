"""Indexes on the Hub: in data set repositories of their own, or in the folder `index` of their model's repository."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from .storage import MANIFEST

INDEX_FOLDER = "index"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)

_CARD = """---
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


def push_index(
    save: Callable[[Path], None],
    repo_id: str,
    *,
    number: int,
    model: str,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload index",
) -> CommitInfo:
    """Push an index to a data set repository, which is made if it is not there, in one commit.

    Args:
        save: writes the index into a folder.
        repo_id: `org/name`.
        number: images in the index, for the card.
        model: what to call the model in the card.
        private: make a new repository private.
        token: Hub token; default: the one of the login or of HF_TOKEN.
        commit_message: message of the commit.

    Raises:
        PermissionError: if the Hub does not accept the token, or the token may not write there.
        ConnectionError: if the Hub cannot be reached, or offline mode is on.
    """
    from ..hub.push import _clear_errors

    api = HfApi(token=token, library_name="idml_hf")
    with _clear_errors(repo_id), tempfile.TemporaryDirectory() as name:
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True).repo_id
        if private and not api.dataset_info(repo_id).private:
            raise ValueError(f"{repo_id} exists already and is public: make it private first. Nothing was sent")
        folder = Path(name)
        save(folder)
        if not api.file_exists(repo_id, "README.md", repo_type="dataset"):
            card = _CARD.format(name=repo_id.split("/")[-1], number=number, model=model, repo_id=repo_id)
            (folder / "README.md").write_text(card, encoding="utf-8")
        return api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            ignore_patterns=[".lock"],
            delete_patterns=["data-*"],
            commit_message=commit_message,
        )


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


__all__ = ["pull_index", "push_index"]
