"""Paint grids of pictures with captions: contact sheets, matches of a query, rows of a class."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG, NEUTRAL = "#1a9850", "#d73027", "#8c8c8c"
_FRAME, _GAP, _TEXT, _LINE = 4, 6, 13, 15
_TITLE_WIDTH = 180
# fonts of these families hold what the first font lacks
_WIDE_FONTS = re.compile(
    r"noto|cjk|wqy|wenquan|droidsansfallback|ipa(ex)?g|takao|vl-?gothic|unifont|arial ?unicode|msyh|msgothic|meiryo"
    r"|simsun|simhei|pingfang|hiragino|applegothic|stheiti|malgun|nanum|source ?han|dejavu|freesans",
    re.IGNORECASE,
)


class Cell(NamedTuple):
    """A picture of a grid; without a picture the place stays white.

    Args:
        picture: a PIL image, or None.
        caption: written below, in as many lines as `sheet` allows.
        color: of the frame; a picture framed in `WRONG` is crossed, too.
    """

    picture: Image.Image | None
    caption: str = ""
    color: str = NEUTRAL


def sheet(
    rows: Sequence[Sequence[Cell]], *, titles: Sequence[str] | None = None, cell: int = 96, lines: int = 1
) -> Image.Image:
    """Rows of pictures, framed and captioned.

    Args:
        rows: the cells of each row.
        titles: what to write to the left of each row.
        cell: side of a picture in pixels.
        lines: lines of text that a caption may take; a longer one ends in an ellipsis.

    Returns:
        An RGB image.

    Example:
        >>> sheet([[Cell(Image.new("RGB", (8, 8)), "bär"), Cell(None)]], cell=40).size
        (116, 77)
    """
    captions = [[_wrapped(item.caption, cell, lines) for item in row] for row in rows]
    heights = [cell + _TEXT + 2 * _GAP + _LINE * (max(map(len, row), default=1) - 1) for row in captions]
    heights = [max(height, cell + _TEXT + 2 * _GAP) for height in heights] or [cell + _TEXT + 2 * _GAP]
    left = 2 * _GAP + (0 if titles is None else _TITLE_WIDTH)
    columns = max((len(row) for row in rows), default=1)
    painted = Image.new("RGB", (left + columns * (cell + _GAP) + 2 * _GAP, sum(heights) + 2 * _GAP), "white")
    pen, top = ImageDraw.Draw(painted), _GAP
    for number, (row, texts) in enumerate(zip(rows, captions, strict=True)):
        if titles is not None:
            for line, part in enumerate(_wrapped(titles[number], _TITLE_WIDTH - 2 * _GAP, max(1, cell // _LINE))):
                _write(pen, 2 * _GAP, top + line * _LINE, part)
        for column, (item, caption) in enumerate(zip(row, texts, strict=True)):
            x = left + column * (cell + _GAP)
            if item.picture is not None:
                _frame(painted, pen, item.picture, item.color, x, top, cell)
            for line, part in enumerate(caption):
                _write(pen, x + (cell - _width(part)) / 2, top + cell + 2 + line * _LINE, part)
        top += heights[number]
    return painted


def image_sheet(
    images: Sequence[Any],
    captions: Sequence[str],
    *,
    columns: int = 8,
    cell: int = 96,
    lines: int = 1,
    colors: Sequence[str] | np.ndarray | None = None,
) -> Image.Image:
    """Images in reading order, each with a caption, framed in `colors` (grey by default)."""
    colors = [NEUTRAL] * len(images) if colors is None else colors
    cells = [Cell(image, caption, color) for image, color, caption in zip(images, colors, captions, strict=True)]
    return sheet([cells[at : at + columns] for at in range(0, len(cells), columns)], cell=cell, lines=lines)


def retrieval_sheet(
    images: Sequence[Any],
    queries: Iterable[int],
    ranking: Any,
    labels: Any,
    *,
    uncertainty: Any = None,
    gallery: Sequence[Any] | None = None,
    gallery_labels: Any = None,
    class_names: Sequence[str] | None = None,
    matches: int = 6,
    cell: int = 96,
) -> Image.Image:
    """One row a query: the query, then its nearest gallery images, framed green (right) or red and crossed (wrong).

    Args:
        images: The images that were searched for, as PIL images.
        queries: Which of them to show.
        ranking: What was found for each image: anything with the arrays `neighbours`, positions `(N, K)` in the
            gallery, best first, -1 for none, and `scores` `(N, K)`. Fewer than `matches` are shown if K is less.
        labels: `(N,)` classes of the images.
        uncertainty: `(N,)`, written under each query as `u`.
        gallery: Separate gallery images, with `gallery_labels`; by default the images.
        class_names: Name of each class, written under its images.
        matches: Nearest images to show.
        cell: Side of a picture in pixels.

    Example:
        >>> from types import SimpleNamespace
        >>> images = [Image.new("RGB", (8, 8), color) for color in ("red", "red", "blue")]
        >>> found = SimpleNamespace(
        ...     neighbours=np.array([[1, 2], [0, 2], [1, 0]]), scores=np.array([[1.0, 0.1], [1.0, 0.1], [0.1, 0.1]])
        ... )
        >>> retrieval_sheet(images, [0, 2], found, [0, 0, 1], matches=2, cell=40).size
        (162, 142)
    """
    labels = np.asarray(labels)
    gallery_labels = labels if gallery is None else np.asarray(gallery_labels)
    shown = images if gallery is None else gallery

    def name(label: Any) -> str:
        return "" if class_names is None else f" {class_names[int(label)]}"

    rows = []
    for query in queries:
        known = "query" if uncertainty is None else f"u {uncertainty[query]:.3g}"
        row = [Cell(images[query], f"{known}{name(labels[query])}")]
        for item, score in zip(ranking.neighbours[query][:matches], ranking.scores[query][:matches], strict=True):
            if item >= 0:
                right = gallery_labels[item] == labels[query]
                row.append(
                    Cell(shown[int(item)], f"{score:.3f}{name(gallery_labels[item])}", RIGHT if right else WRONG)
                )
        rows.append(row)
    return sheet(rows, cell=cell, lines=3)


def _frame(
    painted: Image.Image, pen: ImageDraw.ImageDraw, picture: Image.Image, color: str, left: int, top: int, cell: int
) -> None:
    pen.rectangle((left, top, left + cell - 1, top + cell - 1), outline=color, width=_FRAME)
    inner = cell - 2 * _FRAME
    scale = inner / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    painted.paste(small, (left + (cell - width) // 2, top + (cell - height) // 2))
    if color == WRONG:  # colour alone would not do for everybody
        tick = cell // 7
        corner = (left + cell - _FRAME - tick, top + _FRAME, left + cell - _FRAME - 1, top + _FRAME + tick - 1)
        pen.rectangle(corner, fill="white")
        pen.line(corner, fill=WRONG, width=2)
        pen.line((corner[0], corner[3], corner[2], corner[1]), fill=WRONG, width=2)


def _wrapped(text: str, width: float, lines: int) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels, broken at spaces where that is possible."""
    rest = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    found: list[str] = []
    while rest and len(found) < lines:
        if _width(rest) <= width:
            return [*found, rest]
        fits = next((n for n in range(len(rest) - 1, 1, -1) if _width(rest[:n]) <= width), 1)
        last = len(found) == lines - 1
        if last:
            while fits > 1 and _width(rest[:fits] + "…") > width:
                fits -= 1
            return [*found, rest[:fits].rstrip() + "…"]
        space = rest.rfind(" ", 0, fits + 1)
        cut = space if space > fits // 4 else fits
        found.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return found


def _write(pen: ImageDraw.ImageDraw, left: float, top: float, text: str) -> None:
    for font, part in _runs(text):
        pen.text((left, top + _TEXT), part, fill="black", font=font, anchor="ls")
        left += font.getlength(part)


def _width(text: str) -> float:
    return sum(font.getlength(part) for font, part in _runs(text))


@functools.lru_cache(maxsize=4096)
def _runs(text: str) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """`text` in parts, each with a font that has its characters."""
    parts: list[tuple[ImageFont.FreeTypeFont, str]] = []
    for character in text:
        font = _font_with(character)
        if parts and parts[-1][0] is font:
            parts[-1] = (font, parts[-1][1] + character)
        else:
            parts.append((font, character))
    return parts


@functools.cache
def _font_with(character: str) -> ImageFont.FreeTypeFont:
    """The first font that has `character`: DejaVu, which comes with matplotlib, then those of the system."""
    first = _dejavu()
    for path in (first, *_system_fonts()):
        if ord(character) in _characters(path):
            return _font(path)
    return _font(first)


@functools.cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), _TEXT)


@functools.cache
def _characters(path: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (RuntimeError, OSError):  # a broken or empty font file
        return frozenset()


@functools.cache
def _dejavu() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.cache
def _system_fonts() -> tuple[Path, ...]:
    """Fonts of many characters, those of pictures in colour left out, which have one size only."""
    from matplotlib.font_manager import findSystemFonts

    paths = sorted(Path(path) for path in findSystemFonts())
    return tuple(
        path for path in paths if _WIDE_FONTS.search(path.stem) and not re.search("colou?r|emoji", path.stem, re.I)
    )


__all__ = ["NEUTRAL", "RIGHT", "WRONG", "Cell", "image_sheet", "retrieval_sheet", "sheet"]
