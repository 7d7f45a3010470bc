"""What a list of findings says is better left out of training."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np

from idml_hf.files import readable

from .image_set import ImageSet

logger = logging.getLogger("idml_hf.data")

HARMFUL = frozenset({"wrong_label", "conflict", "leak", "foreign", "unreadable", "blank"})
"""Kinds of findings whose pictures are left out; the others need a look, but do no harm."""
SURE_COPY = 0.97
"""Score from which on a conflict or a leak counts: below, two drawings of one kind may only look alike."""


def is_harmful(kind: str, score: float) -> bool:
    """Whether a picture with such a finding is left out.

    Example:
        >>> is_harmful("blank", 1.0), is_harmful("ambiguous", 0.9), is_harmful("conflict", 0.9)
        (True, False, False)
    """
    return kind in HARMFUL and (kind not in ("conflict", "leak") or score >= SURE_COPY)


def read_exclusions(file: str | Path) -> set[str]:
    """The paths of pictures that a CSV file says are to be left out.

    Args:
        file: With a column `path` and, as `idml-hf audit` writes them, `kind` and `score`, which say what is harmful;
            where there is no column `kind`, all paths count.

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
            return {row["path"] for row in table if row["path"] and ("kind" not in columns or _is_harmful(row))}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a CSV file in UTF-8 ({error})") from error


def _is_harmful(row: dict[str, str]) -> bool:
    score = row.get("score") or "1"
    try:
        return is_harmful(row["kind"], float(score))
    except ValueError:
        raise ValueError(f"{row['path']} has the score {score!r}, which is no number") from None


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


__all__ = ["HARMFUL", "SURE_COPY", "is_harmful", "read_exclusions", "without_excluded"]
