"""The painter of picture grids: captions stay in their cell, and show what some font has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from idml_hf import image_sheet
from idml_hf.image_sheet import Cell, sheet

WHITE = Image.new("RGB", (8, 8), "white")
NAMES = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["W" * 40, "Größe – naïve", "long name " * 9]
)


def dark(image):
    """Where something is written: dark pixels, which neither the frame nor the picture has."""
    return np.asarray(image.convert("L")) < 110


@settings(max_examples=25, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4), st.integers(1, 3), st.sampled_from([48, 96]))
def test_captions_stay_in_their_column_and_above_the_next_row(captions, lines, cell):
    grid = sheet([[Cell(WHITE, caption) for caption in captions], [Cell(WHITE)]], cell=cell, lines=lines)
    ink = dark(grid)
    for column in range(len(captions) + 1):
        gap = 12 + column * (cell + 6) - 4
        assert not ink[:, max(0, gap) : gap + 2].any(), "ink between two columns"
    last_row = grid.height - 12 - cell - 13 - 6
    assert not ink[last_row - 2 : last_row + cell].any(), "ink in the next row"


def test_captions_wrap_at_spaces_and_end_in_an_ellipsis():
    wrapped = image_sheet._wrapped
    assert wrapped("grinning face with smiling eyes", 90, 3) == ["grinning face", "with smiling", "eyes"]
    assert wrapped("grinning face with smiling eyes", 90, 1)[0].endswith("…")
    assert wrapped("a\nb\tc", 90, 1) == ["a b c"] and wrapped("", 90, 1) == []
    for text in ("x" * 50, "two words"):
        assert all(image_sheet._width(line) <= 40 for line in wrapped(text, 40, 2))


@pytest.mark.parametrize("text", ["äöüß", "é—–’", "Ж", "λ"])
def test_letters_beyond_ascii_have_their_own_shape(text):
    shapes = {text: dark(sheet([[Cell(None, text)]])).tobytes() for text in [*text, "\ufffe"]}
    assert len(set(shapes.values())) == len(shapes), "none is the box that stands for a missing letter"


def test_a_font_of_the_system_shows_what_the_first_one_lacks(tmp_path, monkeypatch):
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    for start, *rest in (((0, 0), (0, 900), (900, 900), (900, 0)),):
        pen.moveTo(start)
        for point in rest:
            pen.lineTo(point)
        pen.closePath()
    box = pen.glyph()
    builder.setupGlyphOrder([".notdef", "bear"])
    builder.setupCharacterMap({0x718A: "bear"})
    builder.setupGlyf({".notdef": box, "bear": box})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "bear": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Bears CJK", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "BearsCJK.ttf")
    ink = []
    for fonts in ((), (tmp_path / "BearsCJK.ttf",)):
        monkeypatch.setattr(image_sheet, "_system_fonts", lambda fonts=fonts: fonts)
        for cached in (image_sheet._font_with, image_sheet._runs):
            cached.cache_clear()
        ink.append(dark(sheet([[Cell(None, "熊")]])).sum())
    assert [str(font.path) for font, _ in image_sheet._runs("A熊")][1] == str(tmp_path / "BearsCJK.ttf")
    assert ink[1] > 100 > ink[0]
    for cached in (image_sheet._font_with, image_sheet._runs):
        cached.cache_clear()


def test_titles_stand_left_of_their_rows():
    grid = sheet([[Cell(WHITE)], [Cell(None), Cell(WHITE)]], titles=["train ant", "test " + "very long name " * 20])
    ink = dark(grid)
    assert ink[:20, 12:180].any() and ink[121:140, 12:180].any() and not ink[:, 182:192].any()


def test_an_empty_sheet_is_white():
    assert np.asarray(sheet([])).min() == 255
