"""The query images that the words of a command line name: files, folders, patterns, addresses."""

from __future__ import annotations

import glob
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idml_hf.data import ImageSet
from idml_hf.data.decoding import MAX_FILE_BYTES
from idml_hf.data.folders import images_below, is_image_name
from idml_hf.data.unreadable_images import drop_bad_images

_SCHEMES = ("http://", "https://")
_SECONDS = 30


@dataclass(frozen=True)
class Queries:
    """Query images: their files, and what the user calls them."""

    files: list[str]
    names: list[str]


@contextmanager
def query_files(words: Sequence[str], *, skip_bad_images: bool = False, allow_urls: bool = False) -> Iterator[Queries]:
    """The query images that `words` name; those from elsewhere are there as long as the block runs.

    Args:
        words: Each a file, a folder whose images are meant, also those in its folders, a pattern with `*`, `?` or
            `[...]` unless a file is called so, or an address.
        skip_bad_images: Go on without the images that cannot be read.
        allow_urls: Fetch what begins with `http://` or `https://`.

    Raises:
        FileNotFoundError: naming a word that stands for no image.
        UnreadableImageError: with `skip_bad_images`, if no image is left.
        OSError: naming an address that cannot be fetched.
        ValueError: for an address without `allow_urls`.
    """
    with tempfile.TemporaryDirectory(prefix="idml-hf-") as folder:
        found: list[tuple[str, str]] = []
        for word in words:
            if word.startswith(_SCHEMES):
                if not allow_urls:
                    raise ValueError(f"{word} is an address: --allow-urls fetches it")
                found.append((_fetched(word, Path(folder) / str(len(found))), word))
            else:
                found += [(file, file) for file in _files(word)]
        if skip_bad_images:
            kept = _readable([file for file, _ in found])
            found = [pair for pair in found if pair[0] in kept]
        yield Queries([file for file, _ in found], [name for _, name in found])


def _files(word: str) -> list[str]:
    path = Path(word)
    if path.is_dir():
        below = [str(file) for file in images_below(path)]
        if not below:
            raise FileNotFoundError(f"the folder {word} holds no images")
        return below
    if path.exists() or not glob.has_magic(word):
        return [word]
    matching = sorted(name for name in glob.glob(word, recursive=True) if is_image_name(Path(name).name))
    if not matching:
        raise FileNotFoundError(f"no image is called like {word}")
    return matching


def _readable(files: list[str]) -> set[str]:
    images = ImageSet.from_files(files, np.full(len(files), -1), ())
    (kept,) = drop_bad_images([images], skip=True)
    if not len(kept):
        raise ValueError("none of the query images can be read")
    return set(kept.ids.to_pylist())


def _fetched(url: str, file: Path) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            data = answer.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise OSError(f"{url} cannot be fetched: {reason}") from error
    file.write_bytes(data)
    return str(file)


__all__ = ["Queries", "query_files"]
