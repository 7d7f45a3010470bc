"""Which images of a gallery are meant: by ids, a mask, paths, a class, or what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from .gallery import Gallery
from .metadata import CLASS, matching


def rows_of(gallery: Gallery, items: Any) -> np.ndarray:
    """Rows of images given by their ids, by a bool mask (N,), or by their paths.

    Raises:
        KeyError: for an id or a path that is not there.
        ValueError: for anything else that is none of these.

    Example:
        >>> gallery = Gallery.create(np.eye(3), ids=[5, 7, 9], paths=["a.png", "b.png", "c.png"])
        >>> rows_of(gallery, [9, 5]).tolist(), rows_of(gallery, [False, True, False]).tolist()
        ([2, 0], [1])
        >>> rows_of(gallery, "c.png").tolist()
        [2]
    """
    if isinstance(items, (str, Path)):
        items = [items]
    if isinstance(items, (set, frozenset, range)):
        items = list(items)
    if isinstance(items, pa.Array | pa.ChunkedArray):
        items = items.to_pylist()
    if getattr(getattr(items, "dtype", None), "kind", "") == "O":  # columns of data frames
        items = list(items)
    if isinstance(items, (list, tuple)) and any(isinstance(item, (str, Path)) for item in items):
        if not all(isinstance(item, (str, Path)) for item in items):
            raise ValueError("ids and paths cannot be mixed")
        return rows_of_paths(gallery, items)
    if isinstance(items, np.ma.MaskedArray) and np.ma.is_masked(items):
        raise ValueError("ids have masked values")
    array = items.detach().cpu().numpy() if isinstance(items, torch.Tensor) else np.asarray(items)
    if array.dtype.kind == "U":
        return rows_of_paths(gallery, array.reshape(-1).tolist())
    if array.dtype == bool:
        if array.shape != (len(gallery),):
            raise ValueError(f"a mask needs one value an image: {len(gallery)}, got {array.shape}")
        return np.flatnonzero(array)
    return gallery.positions(array)


def rows_of_paths(gallery: Gallery, paths: Sequence[str | Path]) -> np.ndarray:
    """Rows of all images with one of these paths, rising.

    A path is taken as it stands in the gallery, or else as another way to name the same file.

    Raises:
        KeyError: for a path that is not there.
    """
    names = [str(path) for path in paths]
    mine = gallery.paths.to_pylist()
    rows: list[int] = []
    for same in (str, _absolute):
        wanted = {same(name): name for name in names}
        found = [row for row, path in enumerate(mine) if path and same(path) in wanted]
        there = {wanted[same(mine[row])] for row in found}
        rows += found
        names = [name for name in names if name not in there]
        if not names:
            return np.unique(np.array(rows, dtype=np.int64))
    raise KeyError(f"the index has no image with path {names[0]}")


def rows_of_class(gallery: Gallery, name: str) -> np.ndarray:
    """Rows of all images of a class, by its name or, where classes have none, its number.

    Raises:
        KeyError: for a class that is not there.
    """
    text, label = str(name), -1
    if gallery.class_names:
        label = gallery.class_names.index(text) if text in gallery.class_names else -1
    elif text.isascii() and text.isdigit():
        label = int(text)
    rows = np.flatnonzero(gallery.labels == label) if label >= 0 else np.empty(0, dtype=np.int64)
    if not len(rows):
        raise KeyError(f"the index has no image of class {name}")
    return rows


def rows_where(gallery: Gallery, conditions: Mapping[str, Any]) -> np.ndarray:
    """Rows of the images whose metadata, or `"class"`, are as wanted; see [`~idml_hf.index.metadata.matching`]."""
    columns = dict(gallery.metadata)
    if isinstance(conditions, Mapping) and CLASS in conditions and CLASS not in columns:
        labels, row = np.unique(gallery.labels, return_inverse=True)
        names = [gallery.name_of(label) if label >= 0 else None for label in labels.tolist()]
        columns[CLASS] = pa.array(names, pa.string()).take(pa.array(row))
    return np.flatnonzero(matching(columns, conditions, len(gallery)))


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


__all__ = ["rows_of", "rows_of_class", "rows_of_paths", "rows_where"]
