"""Messages to people: what was wrong, where, and what may have been meant.

This file imports nothing heavy: `idml-hf --help` needs it, and it travels with a model as remote code.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def listing(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` names, and how many more there are.

    Example:
        >>> listing(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'NAME'?"` for the choice most like `name`; nothing where none is like it.

    Example:
        >>> did_you_mean("proxy_ancor", ["proxy_anchor", "proxy_nca"])
        " Did you mean 'proxy_anchor'?"
    """
    near = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.4)
    return f" Did you mean {near[0]!r}?" if near else ""


def one_of(what: str, value: str, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: otherwise, with the nearest choice.

    Example:
        >>> one_of("form", "ratio", ("ratio", "none"))
        'ratio'
    """
    if value in choices:
        return value
    listed = f" Known: {', '.join(choices)}." if len(choices) <= 20 else ""
    raise ValueError(f"Unknown {what} {value!r}.{did_you_mean(value, choices)}{listed}")


@contextmanager
def clear_loading_errors(name: Any, revision: str | None = None) -> Iterator[None]:
    """Say in one line why `name`, a folder or a Hub id, cannot be loaded, where the Hub's client knows the reason.

    Raises:
        PermissionError: if there is such a folder, but this user may not look into it.
    """
    _refuse_closed_folder(str(name))
    try:
        yield
    except OSError as error:
        message = _loading_message(name, revision, error)
        if message is None:
            raise
        kind = FileNotFoundError if message.startswith("There is no folder") else OSError
        raise kind(message) from error


def _refuse_closed_folder(name: str) -> None:
    # what is closed looks as if it were not there to those who ask for the files in it
    try:
        closed = os.path.isdir(name) and not os.access(name, os.R_OK | os.X_OK)
        os.stat(name)
    except PermissionError:
        closed = True
    except (OSError, ValueError):
        return
    if closed:
        raise PermissionError(f"{name} may not be read by this user: permission denied")


def _loading_message(name: Any, revision: str | None, error: OSError) -> str | None:
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    if isinstance(error, FileNotFoundError):
        return None
    reason = error.__cause__ or error
    if isinstance(reason, hub.HFValidationError):
        return f"There is no folder {name}"
    if isinstance(reason, hub.RevisionNotFoundError):
        return f"{name} has no revision {revision!r} on the Hub"
    if isinstance(reason, hub.RepositoryNotFoundError):
        return (
            f"There is neither a folder {name} nor such a repository on the Hub that you may read. If it is "
            "private, log in with `hf auth login`, set HF_TOKEN, or give token="
        )
    if isinstance(reason, (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled)):
        state = "offline mode is on" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        where = f"{name} at revision {revision}" if revision else name
        return f"{where} is neither a folder nor in the cache, and {state}"
    if isinstance(reason, hub.HfHubHTTPError) and reason.response.status_code == 401:
        return f"The Hub does not accept the token with which {name} was asked for"
    return None


__all__ = ["clear_loading_errors", "did_you_mean", "listing", "one_of"]
