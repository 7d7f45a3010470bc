"""The one gate through which everything goes that is published: models, indexes, Spaces and their cards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from idml_hf.picture_metadata import without_metadata

from .private_data import private_data_in, without_private_data

Files = dict[str, Path | bytes]

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
# written by this package alone, by `published_index`
_ARRAYS = frozenset({".npy", ".parquet"})
_MAX_HEADER = 10**8


def published(files: Files, folder: Path) -> Files:
    """What of `files` may be seen by others.

    JSON loses secrets and the folders of this machine; pictures lose all but their pixels, GPS positions above all.
    What cannot be cleaned, since it is somebody's own text or weights, is refused.

    Args:
        files: Path in the repository -> a file in `folder`, or content.
        folder: Where the files are. Links, and files that are elsewhere, are refused.

    Raises:
        FileNotFoundError: naming a file that is not there.
        ValueError: naming a file that is a link, is elsewhere, or holds something private that cannot be taken out.
    """
    return {name: _published(name, content, folder) for name, content in files.items()}


def own_file(path: Path, folder: Path) -> Path:
    """`path`, if it is a plain file within `folder`.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is a link, no plain file, or not within `folder`.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link to another place: what it leads to is not published")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is no plain file, so it is not published")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} is not within {folder}, so it is not published")
    return path


def _published(name: str, content: Path | bytes, folder: Path) -> Path | bytes:
    if re.search(r"^[/~]|\\|(^|/)\.\.(/|$)|^[A-Za-z]:", name):
        raise ValueError(f"{name!r} is no name for a file in a repository")
    source = own_file(content, folder) if isinstance(content, Path) else name
    suffix = Path(name).suffix.lower()
    if suffix in _ARRAYS:
        return content
    if suffix == ".safetensors":
        _refuse(source, private_data_in(_safetensors_header(content)))
        return content
    if suffix in _PICTURES:
        try:
            return without_metadata(_read(content))
        except ValueError as error:
            raise ValueError(f"{source} {error}") from error
    if suffix == ".json":
        value = json.loads(_read(content))
        cleaned = without_private_data(value)
        if cleaned != value:
            content = json.dumps(cleaned, indent=2, ensure_ascii=False).encode() + b"\n"
    _refuse(source, private_data_in(_read(content)))
    return content


def _read(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _refuse(source: Any, found: str | None) -> None:
    if found is not None:
        raise ValueError(f"{source} holds {found}: take it out before this is published. Nothing was sent")


def _safetensors_header(content: Path | bytes) -> bytes:
    """The names of the tensors and whatever else has been written before them."""
    if isinstance(content, bytes):
        return content[8 : 8 + int.from_bytes(content[:8], "little")]
    with open(content, "rb") as file:
        return file.read(min(int.from_bytes(file.read(8), "little"), _MAX_HEADER))


__all__ = ["Files", "own_file", "published"]
