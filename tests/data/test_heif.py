"""The extra `heif`: pictures of phones are read where it is installed, and counted where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from idml_hf.data import load_images
from idml_hf.data.decoding import HEIF_SUFFIXES, SUFFIXES


@pytest.fixture
def photos(tmp_path):
    for number, color in enumerate(("red", "blue")):
        (tmp_path / color).mkdir()
        Image.new("RGB", (64, 48), color).save(tmp_path / color / f"{number}.png")
    return tmp_path


def test_they_are_read(photos):
    pillow_heif = pytest.importorskip("pillow_heif")
    for color in ("red", "blue"):
        pillow_heif.from_pillow(Image.new("RGB", (64, 48), color)).save(photos / color / "phone.heic")
    images = load_images(photos)
    assert len(images) == 4
    for at in range(4):
        pixels = np.asarray(images[at]).reshape(-1, 3).mean(0)
        assert images[at].size == (64, 48)
        assert pixels.argmax() == {"red": 0, "blue": 2}[images.class_names[images.labels[at]]]


def test_what_is_skipped_is_counted_by_kind(photos, monkeypatch, caplog):
    monkeypatch.setattr("idml_hf.data.folders.SUFFIXES", SUFFIXES - HEIF_SUFFIXES)
    for name in ("a.heic", "b.HEIC", "film.mov", "notes.txt"):
        (photos / "red" / name).write_bytes(b"\0")
    assert len(load_images(photos)) == 2
    assert "(2 .heic, 1 .mov); pip install 'idml-hf[heif]' to read .heic" in caplog.text
    assert ".txt" not in caplog.text
