"""What must not be published: secrets, and the places and people of the machine something was made on."""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import Any

from huggingface_hub import get_token

# names of settings whose values are secrets; `reg_tokens` and `num_prefix_tokens` are none
_SECRET_NAME = re.compile(
    r"(?:^|[_. -])(?:token|secrets?|passwords?|passwd|passphrase|credentials?|authorization|cookies?"
    r"|(?:api|access|private|secret)[_-]?keys?)(?:$|[_. -])",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{20,}"
    r"|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{20,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\bxox[abeprs]-[\w-]{10,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_STOP = r"\s\"'`<>|:;,()\[\]{}"
_PLACE = re.compile(
    rf"file://[^{_STOP}]*"
    rf"|(?<![\w.:/\\])/(?!/)[^{_STOP}]+"
    rf"|(?<![\w/])~[\w.-]*/[^{_STOP}]*"
    rf"|(?<![A-Za-z0-9])[A-Za-z]:[\\/][^\s\"'`<>|;,]*"
    r"|(?<![\w\\])\\\\[\w.-]+\\[^\s\"'`<>|;,]*"
)
# where machines keep what is their users'; beside those that this machine has
_TOP_FOLDERS = frozenset(
    {"Users", "Volumes", "afs", "cluster", "content", "data", "export", "gpfs", "home", "kaggle", "lustre", "media"}
    | {"mnt", "net", "nfs", "opt", "private", "proj", "project", "projects", "root", "scratch", "srv", "storage"}
    | {"tmp", "usr", "var", "work", "workspace", "workspaces"}
)
_HOMES = frozenset({"home", "users"})
# short enough to be met by chance, in weights for one
_SHORTEST_PLACE, _SHORTEST_SECRET = 6, 8


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret.

    Example:
        >>> is_secret_name("hub_token"), is_secret_name("apiKey"), is_secret_name("num_prefix_tokens")
        (True, True, False)
    """
    return _SECRET_NAME.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)) is not None


def without_secrets(value: Any) -> Any:
    """A JSON value without secrets: neither settings that are named like one, nor text that looks like one."""
    if isinstance(value, dict):
        return {
            _without_secrets_in(str(key)): without_secrets(content)
            for key, content in value.items()
            if content is None or isinstance(content, bool) or not is_secret_name(str(key))
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(content) for content in value]
    return _without_secrets_in(value) if isinstance(value, str) else value


def without_private_data(value: Any) -> Any:
    """A JSON value without secrets, and with only the last part of each path of a machine.

    Example:
        >>> without_private_data({"hub_token": "x", "note": "see /home/me/a.log", "names": ["and/or", "/m/01g31"]})
        {'note': 'see a.log', 'names': ['and/or', '/m/01g31']}
    """
    return _map_strings(without_secrets(value), _without_places)


def without_folders(name: str) -> str:
    """A Hub id as it is; of a path its last part.

    Example:
        >>> without_folders("org/name"), without_folders("/home/me/photos"), without_folders("photos/birds/")
        ('org/name', 'photos', 'birds')
    """
    is_path = name.startswith((".", "~")) or os.path.isabs(name) or name.count("/") > 1 or "\\" in name
    return _last_part(name) if is_path or name.endswith("/") or os.path.exists(name) else name


def private_data_in(content: bytes | str) -> str | None:
    """What in a text, or in any bytes, should not be published, in words; None where nothing is found."""
    text = content if isinstance(content, str) else content.decode("utf-8", errors="replace")
    if _SECRET.search(text) or any(secret in text for secret in _secrets()):
        return "a secret, as a token is"
    for place in (*_places(), *(m.group() for m in _PLACE.finditer(text) if _is_place(m.group()))):
        if place in text:
            return f"a path of a machine, {place}"
    return None


def _map_strings(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {change(str(key)): _map_strings(content, change) for key, content in value.items()}
    if isinstance(value, list):
        return [_map_strings(content, change) for content in value]
    return change(value) if isinstance(value, str) else value


def _without_secrets_in(text: str) -> str:
    for secret in _secrets():
        text = text.replace(secret, "…")
    return _SECRET.sub("…", text)


def _without_places(text: str) -> str:
    # a path may have blanks, so one that is all there is goes first, and then those that are known
    if _is_place(text) and _PLACE.match(text) and "\n" not in text:
        return _last_part(text)
    text = _PLACE.sub(lambda match: _last_part(match.group()) if _is_place(match.group()) else match.group(), text)
    for place in _places():
        text = text.replace(place, "~")
    return text


def _is_place(text: str) -> bool:
    if not text.startswith("/"):
        return True
    parts = text.strip("/").split("/")
    return parts[0] in _top_folders() and len(parts) > 1


def _last_part(path: str) -> str:
    """Name of a file or folder; `~` for a home, whose name is somebody's."""
    parts = [part for part in PureWindowsPath(path.removeprefix("file://")).parts if part.strip("\\/")]
    if not parts or parts[-1].endswith(":\\") or parts[-1] == _user() or parts[-1].startswith("~"):
        return "~"
    return "~" if len(parts) > 1 and parts[-2].strip("\\/").lower() in _HOMES else parts[-1]


@cache
def _top_folders() -> frozenset[str]:
    try:
        return _TOP_FOLDERS | frozenset(os.listdir("/"))
    except OSError:
        return _TOP_FOLDERS


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def _secrets() -> list[str]:
    """The secrets that this process knows."""
    values = [value for name, value in os.environ.items() if is_secret_name(name)]
    return sorted({value for value in [get_token() or "", *values] if len(value) >= _SHORTEST_SECRET}, key=len)[::-1]


def _places() -> list[str]:
    """Folders of this machine that say who works on it, and where."""
    found = {str(Path.home()), os.path.realpath(Path.home()), os.getcwd(), tempfile.gettempdir()}
    return sorted((place for place in found if len(place) >= _SHORTEST_PLACE), key=len)[::-1]


__all__ = ["is_secret_name", "private_data_in", "without_folders", "without_private_data", "without_secrets"]
