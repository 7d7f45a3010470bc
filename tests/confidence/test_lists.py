"""Lists of classes that hold the right one as often as promised, and are short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.confidence.class_means import ClassMeans
from idml_hf.confidence.labelled_queries import LabelledQueries
from idml_hf.confidence.lists import HEAT, level, levels_of, surprise_of_right_classes, surprises
from idml_hf.data import load_images
from idml_hf.search.arrays import unit_rows


def world(seed: int, classes: int = 60, each: int = 10) -> LabelledQueries:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    spread = random.uniform(0.2, 1.5, classes)[labels]
    rows = random.standard_normal((classes, 8))[labels] + spread[:, None] * random.standard_normal((len(labels), 8))
    return LabelledQueries(unit_rows(rows, "rows"), np.zeros((len(labels), 1), np.float32), labels)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_surprise_is_that_of_a_gallery_without_what_is_hidden(grouped: bool) -> None:
    queries = world(0, classes=7, each=6)
    groups = np.tile([0, 0, 1, 1, 2, 2], 7) if grouped else None
    found = surprise_of_right_classes(replace(queries, groups=groups))
    expected = []
    for row, label in enumerate(queries.labels):
        rest = np.arange(42) != row
        if groups is not None:
            rest = (queries.labels != label) | (groups != groups[row])
        score = []
        for other in range(7):
            images = queries.semantic[rest & (queries.labels == other)]
            mean = images.sum(0) / np.linalg.norm(images.sum(0))
            score.append((images @ queries.semantic[row]).max() + mean @ queries.semantic[row])
        share = np.exp(np.array(score) / HEAT) / np.exp(np.array(score) / HEAT).sum()
        expected.append(-np.log(share[label]))
    assert found == pytest.approx(np.sort(expected), abs=1e-4)


def test_lists_miss_no_more_than_promised_and_are_shorter_than_constant_ones() -> None:
    missed, length, constant = {0.05: [], 0.1: [], 0.2: []}, [], []
    for seed in range(12):
        levels = levels_of(surprise_of_right_classes(world(seed)))
        # half of each new class is the gallery, half is asked
        new = world(100 + seed)
        gallery, asked = new.select(np.arange(600) % 2 == 0), new.select(np.arange(600) % 2 == 1)
        means = ClassMeans.of(gallery.semantic, gallery.labels)
        found = surprises(asked.semantic, gallery.semantic, means, gallery.labels)
        right = found[np.arange(300), asked.labels]
        for miss, rates in missed.items():
            rates.append(np.mean(right > level(levels, miss)))
        length.append((found <= level(levels, 0.1)).sum(1).mean())
        rank = (found < right[:, None]).sum(1)
        constant.append(np.sort(rank)[269] + 1)  # the shortest that misses 10 %, even in hindsight
    for miss, rates in missed.items():
        # half as large a gallery has worse means, so a little more is missed than where it is of one size
        assert np.mean(rates) < miss + 0.03, (miss, rates)
    assert np.mean(length) < 0.8 * np.mean(constant)


def test_levels_are_conformal_quantiles() -> None:
    levels = levels_of(np.arange(1, 1000) / 1000)
    assert level(levels, 0.1) == 0.9 and level(levels, 0.05) == 0.95 and level(levels, 0.5) == 0.5
    # 99 images cannot promise to miss less than one in 100
    assert level(levels_of(np.arange(99)), 0.005) == np.inf and level(levels_of(np.arange(99)), 0.01) == 98
    assert level(levels_of(np.zeros(0)), 0.5) == np.inf
    for miss in (0.0, 1.0):
        with pytest.raises(ValueError, match="must be in"):
            level(levels, miss)


def test_an_index_gives_lists_and_keeps_their_length(tmp_path: Path) -> None:
    model = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=16, image_size=48)
    images = load_images("emoji-mini", split="test").select(range(120))
    index = IDMLIndex.build(model, images, progress=False)
    with pytest.raises(ValueError, match="not calibrated for lists"):
        index.shortlist(images[0])
    index.calibrate(progress=False)
    strict, loose = index.shortlist([images[0], images[50]], 0.02), index.shortlist([images[0], images[50]], 0.5)
    for short, whole in zip(loose, strict, strict=True):
        assert 1 <= len(short) <= len(whole) and whole[: len(short)] == short and len(set(whole)) == len(whole)
    assert loose[0][0] == images.class_names[images.labels[0]]  # it is in the index
    index.save(tmp_path)
    loaded = IDMLIndex.load(tmp_path)
    loaded._model = model
    assert loaded.shortlist([images[0], images[50]], 0.5) == loose
