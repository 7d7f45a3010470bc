"""Sending files to the Hub in one commit, with errors that say in one line what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled

from .published import Files
from .record import CARD_FILE

_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def commit_files(
    files: Files,
    repo_id: str,
    *,
    kind: str = "model",
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    is_stale: Callable[[str], bool] = lambda path: False,
    keeps_card: Callable[[str], bool] = lambda text: False,
    **commit: Any,
) -> CommitInfo:
    """Send files to a repository, which is made if it is not there, in one commit.

    Args:
        files: Path in the repository -> file or content, as `published` returned them.
        repo_id: `org/name`.
        kind: `"model"`, `"dataset"` or `"space"`.
        private: Make a new repository private.
        token: Hub token; None: the one of the login or of HF_TOKEN.
        revision: Branch, which is made if it is not there; None: the main one.
        is_stale: Whether a file there that is not in `files` would be read as a part of them, and goes.
        keeps_card: Whether the card that is there, given its text, stays as it is.
        commit: Further arguments of `HfApi.create_commit`.

    Raises:
        PermissionError: if the Hub does not accept the token, or the token may not write there.
        ConnectionError: if the Hub cannot be reached, or offline mode is on.
        ValueError: if `repo_id` cannot be a name, or a public repository is there and `private` is asked for.
    """
    api = HfApi(token=token, library_name="idml_hf")
    with clear_hub_errors(repo_id):
        sdk = "gradio" if kind == "space" else None
        created = api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True, space_sdk=sdk)
        repo_id = created.repo_id
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise ValueError(f"{repo_id} exists already and is public: make it private first. Nothing was sent")
        if revision is not None:
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, repo_type=kind, revision=revision)
        if CARD_FILE in there and CARD_FILE in files:
            card = api.hf_hub_download(repo_id, CARD_FILE, repo_type=kind, revision=revision)
            if keeps_card(Path(card).read_text(encoding="utf-8")):
                files = {path: content for path, content in files.items() if path != CARD_FILE}
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in files.items()]
        operations += [CommitOperationDelete(path) for path in there if path not in files and is_stale(path)]
        return api.create_commit(repo_id, operations, repo_type=kind, revision=revision, **commit)


@contextmanager
def clear_hub_errors(repo_id: str) -> Iterator[None]:
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


__all__ = ["clear_hub_errors", "commit_files"]
