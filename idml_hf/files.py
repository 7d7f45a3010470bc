"""Writing files so that they are there whole or not at all, and reading JSON that may come from anywhere."""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 2**26


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place in one step when the block ends without an error.

    The name is different each time, so that two writers do not meet in it, and the mode is what the umask says.

    Args:
        path: The file to write; its folder is made if needed.

    Raises:
        OSError: if it cannot be written; what was there is intact.

    Example:
        >>> with replacing("numbers.txt") as part:
        ...     _ = part.write_text("1 2 3")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays, since writers of tables and pictures choose the format by it
    part = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one step."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, indent: int = 2) -> None:
    """Write JSON in one step.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def clear_writing_errors(path: str | Path) -> Iterator[None]:
    """Say by an OSError that names `path` what native writers of tensors say in their own words: the disk is full."""
    try:
        yield
    except Exception as error:
        said = str(error)
        if type(error).__name__ != "SafetensorError" and not re.search("inline_container|PytorchStreamWriter", said):
            raise
        reason = re.search(r"I/O error: (.*?)( \(os error \d+\))?$", said)
        why = reason.group(1) if reason else "is there no space left on the disk?"
        raise OSError(f"{path} could not be written: {why}") from error


def readable(path: str | Path) -> Path:
    """`path`, if it is a plain file that this user may read.

    Raises:
        FileNotFoundError: if it is none: not there, a folder, or a pipe, which would be waited for.
        PermissionError: if it, or a folder on the way to it, is closed to this user.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileNotFoundError(f"There is no file {path}")
    except PermissionError:
        raise PermissionError(f"{path} may not be read by this user: permission denied") from None
    except (OSError, ValueError):
        raise FileNotFoundError(f"There is no file {path}") from None
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} may not be read by this user: permission denied")
    return path


def read_json(path: str | Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object from a file that need not be trusted.

    Raises:
        FileNotFoundError: if there is no such file.
        PermissionError: if this user may not read it.
        ValueError: naming the file, if it is no JSON object or too large to be one of ours.
    """
    path = readable(path)
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} is too large: {size} bytes, at most {max_bytes} are read")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return value


__all__ = ["clear_writing_errors", "read_json", "readable", "replacing", "write_json", "write_text"]
