"""What a list of findings says is better left out of training."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from idml_hf.files import readable

from .image_set import ImageSet

logger = logging.getLogger("idml_hf.data")

HARMFUL = frozenset({"wrong_label", "conflict", "leak", "foreign", "unreadable", "blank"})
"""Kinds of findings whose pictures are left out; the others need a look, but do no harm."""


def left_out(findings: Iterable[tuple[str, str]]) -> set[str]:
    """The paths of pictures to leave out, of pairs of a path and a kind of finding.

    Example:
        >>> sorted(left_out([("a.png", "blank"), ("b.png", "ambiguous")]))
        ['a.png']
    """
    return {path for path, kind in findings if kind in HARMFUL}


def read_exclusions(file: str | Path) -> set[str]:
    """The paths of pictures that a CSV file says are to be left out.

    Args:
        file: With a column `path` and, as `idml-hf audit` writes it, `kind`, of which those of `HARMFUL` count; where
            there is no such column, all paths count.

    Raises:
        FileNotFoundError, PermissionError: if it cannot be read.
        ValueError: naming the file, if it is no such table.
    """
    try:
        with readable(file).open(newline="", encoding="utf-8-sig") as opened:
            table = csv.DictReader(opened)
            columns = table.fieldnames or ()
            if "path" not in columns:
                raise ValueError(f"{file} has no column 'path'; its columns: {', '.join(columns) or 'none'}")
            rows = [(row["path"] or "", row.get("kind") or "") for row in table]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a CSV file in UTF-8 ({error})") from error
    return left_out(rows) if "kind" in columns else {path for path, _ in rows}


def without_excluded(images: ImageSet, file: str | Path | None) -> ImageSet:
    """`images` without those that a CSV file says are to be left out, see `read_exclusions`; all, without a file.

    Raises:
        ValueError: if the file names none of the images, or all.
    """
    if file is None:
        return images
    paths = read_exclusions(file)
    kept = np.array([name not in paths for name in images.ids.to_pylist()], dtype=bool)
    if paths and kept.all():
        raise ValueError(
            f"{file} names none of the training images, which are called as {images.image_id(0)}: "
            "audit the data set by the same name"
        )
    if not kept.any():
        raise ValueError(f"{file} names all training images")
    logger.warning("%d of %d training images are left out, as %s says", (~kept).sum(), len(images), file)
    return images.select(kept)


__all__ = ["HARMFUL", "left_out", "read_exclusions", "without_excluded"]
