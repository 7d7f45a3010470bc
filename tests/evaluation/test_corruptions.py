from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from idml_hf.evaluation.corruptions import CORRUPTIONS, SEVERITIES, CorruptedImages, severity_spearman


def pictures(number: int = 4, size: tuple[int, int] = (40, 32)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(number)]


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_strength_rises_with_severity_from_nothing(corruption: str) -> None:
    images = pictures()
    for index, clean in enumerate(images):
        distance = [difference(CorruptedImages(images, corruption, s)[index], clean) for s in SEVERITIES]
        assert distance[0] == 0 and all(np.diff(distance) > 0), distance


@pytest.mark.parametrize("corruption", [*CORRUPTIONS, "crop"])
def test_what_is_random_depends_on_seed_and_index_alone(corruption: str) -> None:
    images = pictures()
    first = CorruptedImages(images, corruption, 1, seed=3)
    again = CorruptedImages(images, corruption, 1, seed=3, indices=[2, 0])
    assert first[2] == again[0] and first[0] == again[1] and len(again) == 2
    other = CorruptedImages(images, corruption, 1, seed=4)
    same = all(first[i] == other[i] for i in range(4))
    assert same == (corruption in ("blur", "downscaling"))


def test_stronger_occlusion_hides_what_a_weaker_one_hides() -> None:
    images = [Image.fromarray(np.arange(100 * 100 * 3, dtype=np.uint32).reshape(100, 100, 3).astype(np.uint8))]
    clean = np.asarray(images[0])
    hidden = [(np.asarray(CorruptedImages(images, "occlusion", s)[0]) != clean).any(-1) for s in SEVERITIES]
    assert [mask.mean() for mask in hidden] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=0.02)
    assert all((strong | ~weak).mean() > 0.99 for weak, strong in pairwise(hidden))


def test_mixing_takes_another_image() -> None:
    images = [Image.new("L", (8, 8), 250 * i) for i in range(2)]
    assert [np.asarray(CorruptedImages(images, "mixing", s)[0]).max() for s in (1, 5)] == [25, 125]


def test_images_are_shrunk_first_but_never_enlarged() -> None:
    images = pictures(size=(80, 40))
    assert CorruptedImages(images, "noise", 0, side=20)[0].size == (40, 20)
    assert CorruptedImages(images, "noise", 0, side=64)[0].size == (80, 40)


def test_spearman_equals_scipy() -> None:
    values = np.random.default_rng(0).integers(0, 5, (50, 6)).astype(float)
    values[0] = 1
    expected = [0.0, *(spearmanr(row, range(6)).statistic for row in values[1:])]
    assert severity_spearman(values) == pytest.approx(np.mean(expected))
    assert severity_spearman(np.arange(12.0).reshape(2, 6)) == pytest.approx(1)
    assert severity_spearman(-np.arange(12.0).reshape(2, 6)) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fog", 1), "Unknown corruption 'fog'"),
        (("blur", 6), "severity 6 of 'blur'"),
        (("crop", 2), "severity 2 of 'crop'"),
    ],
)
def test_bad_input_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorruptedImages(pictures(), *arguments)
    with pytest.raises(ValueError, match="at least two images"):
        CorruptedImages(pictures(1), "mixing", 1)
