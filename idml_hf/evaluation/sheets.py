"""Contact sheets: queries with what was found for them, and rows of images with captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .retrieval import Ranking

RIGHT, WRONG, NEUTRAL = "#1a9850", "#d73027", "#8c8c8c"
_FRAME, _GAP, _TEXT = 4, 6, 13


def retrieval_sheet(
    images: Sequence[Any],
    queries: Iterable[int],
    ranking: Ranking,
    labels: Any,
    *,
    uncertainty: Any = None,
    gallery: Sequence[Any] | None = None,
    gallery_labels: Any = None,
    matches: int = 6,
    cell: int = 96,
) -> Image.Image:
    """One row a query: the query, then its nearest gallery images, framed green (right) or red and crossed (wrong).

    Args:
        images: The images that were searched for, as PIL images.
        queries: Which of them to show.
        ranking: From `rank` with at least `matches` neighbours kept; fewer are shown if it has fewer.
        labels: `(N,)` classes of the images.
        uncertainty: `(N,)`, written under each query as `u`.
        gallery: Separate gallery images, with `gallery_labels`; by default the images.
        matches: Nearest images to show.
        cell: Side of a picture in pixels.

    Example:
        >>> from idml_hf.evaluation import rank
        >>> images = [Image.new("RGB", (8, 8), color) for color in ("red", "red", "blue", "blue")]
        >>> ranking = rank([[1, 0], [1, 1], [0, 1], [0, 1]], [0, 0, 1, 1], keep=3)
        >>> retrieval_sheet(images, [0, 3], ranking, [0, 0, 1, 1], matches=3, cell=40).size
        (208, 142)
    """
    labels = np.asarray(labels)
    gallery_labels = labels if gallery is None else np.asarray(gallery_labels)
    shown = images if gallery is None else gallery
    rows = []
    for query in queries:
        row = [_Cell(images[query], NEUTRAL, "query" if uncertainty is None else f"u {uncertainty[query]:.3g}")]
        for item, score in zip(ranking.neighbours[query][:matches], ranking.scores[query][:matches], strict=True):
            if item >= 0:
                right = gallery_labels[item] == labels[query]
                row.append(_Cell(shown[int(item)], RIGHT if right else WRONG, f"{score:.3f}"))
        rows.append(row)
    return _draw(rows, cell)


def image_sheet(
    images: Sequence[Any], captions: Sequence[str], *, columns: int = 8, cell: int = 96, colors: Any = None
) -> Image.Image:
    """Images in reading order, each with a caption, framed in `colors` (grey by default)."""
    colors = [NEUTRAL] * len(images) if colors is None else colors
    cells = [_Cell(image, color, caption) for image, color, caption in zip(images, colors, captions, strict=True)]
    return _draw([cells[at : at + columns] for at in range(0, len(cells), columns)], cell)


class _Cell:
    """A picture with a frame and a caption."""

    def __init__(self, image: Image.Image, color: str, caption: str) -> None:
        self.image, self.color, self.caption = image.convert("RGB"), color, caption

    def draw(self, sheet: Image.Image, left: int, top: int, cell: int) -> None:
        pen = ImageDraw.Draw(sheet)
        pen.rectangle((left, top, left + cell - 1, top + cell - 1), outline=self.color, width=_FRAME)
        inner = cell - 2 * _FRAME
        scale = inner / max(self.image.size)
        size = [max(1, round(side * scale)) for side in self.image.size]
        picture = self.image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left + (cell - size[0]) // 2, top + (cell - size[1]) // 2))
        if self.color == WRONG:  # colour alone would not do for everybody
            tick = cell // 7
            corner = (left + cell - _FRAME - tick, top + _FRAME, left + cell - _FRAME - 1, top + _FRAME + tick - 1)
            pen.rectangle(corner, fill="white")
            pen.line(corner, fill=WRONG, width=2)
            pen.line((corner[0], corner[3], corner[2], corner[1]), fill=WRONG, width=2)
        middle = (left + cell / 2, top + cell + 2)
        pen.text(middle, self.caption, fill="black", font=ImageFont.load_default(_TEXT), anchor="ma")


def _draw(rows: list[list[_Cell]], cell: int) -> Image.Image:
    wide, high = cell + _GAP, cell + _TEXT + 2 * _GAP
    columns = max((len(row) for row in rows), default=1)
    sheet = Image.new("RGB", (columns * wide + 4 * _GAP, max(1, len(rows)) * high + 2 * _GAP), "white")
    for y, row in enumerate(rows):
        for x, item in enumerate(row):
            item.draw(sheet, 2 * _GAP + x * wide, _GAP + y * high, cell)
    return sheet
