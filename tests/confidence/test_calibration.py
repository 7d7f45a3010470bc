from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.confidence.calibration import Calibration, fit_calibration
from idml_hf.confidence.class_means import ClassMeans
from idml_hf.confidence.collection import Collection
from idml_hf.confidence.features import SIGNALS, Matches, OwnImages, match_signals
from idml_hf.confidence.labelled_queries import JudgedQueries, LabelledQueries, judge_among_themselves
from idml_hf.data import ImageSet, load_images
from idml_hf.index.gallery import unit_rows
from idml_hf.index.results import SearchResult


def world(seed: int, classes: int = 60, each: int = 12) -> LabelledQueries:
    """Classes of differing compactness; the looser an image's class, the larger its uncertainty."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    spread = random.uniform(0.2, 1.5, classes)[labels]
    rows = random.standard_normal((classes, 8))[labels] + spread[:, None] * random.standard_normal((len(labels), 8))
    u = spread[:, None] * np.ones((1, 3)) * random.uniform(0.8, 1.2, (len(labels), 1))
    names = tuple(f"{seed} {label}" for label in range(classes))
    return LabelledQueries(unit_rows(rows, "rows"), u.astype(np.float32), labels, names)


def halves(queries: LabelledQueries) -> tuple[LabelledQueries, LabelledQueries]:
    """Every other image of each class."""
    first, second = (
        replace(
            queries,
            semantic=queries.semantic[side::2],
            uncertainty_embeds=queries.uncertainty_embeds[side::2],
            labels=queries.labels[side::2],
        )
        for side in (0, 1)
    )
    return first, second


def index_of(queries: LabelledQueries) -> IDMLIndex:
    return IDMLIndex.from_embeddings(
        queries.semantic, queries.uncertainty_embeds, labels=queries.labels, class_names=queries.class_names
    )


def test_signals_of_a_hand_made_gallery() -> None:
    labels = np.array([0, 0, 1, -1])
    matches = Matches(np.array([[0.9, 0.8, 0.5, 0.4], [0.7, 0.6, 0.2, 0.1]]), np.array([[0, 1, 2, 3], [3, 0, 1, 2]]))
    theirs = {
        0: ([1.0, 0.75, 0.3, 0.1], [0, 1, 3, 2]),
        3: ([1.0, 0.3, 0.2, 0.0], [3, 0, 1, 2]),
    }

    def search(positions: np.ndarray) -> Matches:
        rows = [theirs[int(position)] for position in positions]
        return Matches(np.array([scores for scores, _ in rows]), np.array([found for _, found in rows]))

    collection = Collection(np.eye(4, dtype=np.float32), np.array([4.0, 6.0, 7.0, 5.0]), labels)
    asked = np.array([[0.6, 0.0, 0.8, 0.0], [0.0, 0.0, 0.6, 0.8]], dtype=np.float32)
    found = match_signals(collection, asked, np.array([2.0, 3.0]), matches, search)
    # the second query's match is of unknown class: the next item counts as of another, none agrees, and its similarity
    # stands for that of its class
    margins = [0.6 / np.sqrt(2) - 0.8, 0.8 - 0.6]
    expected = [[0.9, 0.4, 0.6, margins[0], 0.1, 2.0, 4.0], [0.7, 0.1, 0.4, margins[1], 0.0, 3.0, 5.0]]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
    own = OwnImages(np.array([1, 1]), np.array([7, 8]), np.array([8, 8, 7, 9]))
    found = match_signals(collection, asked, np.array([2.0, 3.0]), matches, search, own)
    assert found[0, SIGNALS.index("mutual_margin")] == pytest.approx(0.9 - 0.3)
    theirs[0] = ([1.0, 0.75, 0.3, 0.1], [0, 1, 2, 3])
    found = match_signals(collection, asked, np.array([2.0, 3.0]), matches, search, own)
    assert found[0, SIGNALS.index("mutual_margin")] == pytest.approx(0.9 - 0.1)


def test_class_margin_is_the_difference_of_cosines_with_class_means() -> None:
    queries = world(8, classes=6, each=5)
    asked = world(9, classes=6, each=3)
    means = ClassMeans.of(queries.semantic, np.where(queries.labels == 5, -1, queries.labels * 10))
    matched = np.array([0, 10, 20, 30, 40, -1] * 3)
    found = means.margin(asked.semantic, matched, np.full(18, 0.5))
    directions = np.stack([queries.semantic[queries.labels == label].mean(0) for label in range(5)])
    cosines = asked.semantic @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
    for row, label in enumerate(matched // 10):
        own = 0.5 if label < 0 else cosines[row, label]
        assert found[row] == pytest.approx(own - np.delete(cosines[row], label if label >= 0 else []).max(), abs=1e-6)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_judged_query_sees_what_it_would_see_if_its_class_and_group_were_not_there(grouped: bool) -> None:
    queries = world(0, classes=5, each=6)
    groups = np.tile([0, 0, 1, 1, 2, 2], 5) if grouped else None
    judged = judge_among_themselves(replace(queries, groups=groups))
    for row in range(30):
        rest = np.arange(30) != row
        if groups is not None:
            rest = (queries.labels != queries.labels[row]) | (groups != groups[row])
        gallery = IDMLIndex.from_embeddings(
            queries.semantic[rest],
            queries.uncertainty_embeds[rest],
            labels=queries.labels[rest],
            class_names=queries.class_names,
        )
        alone = replace(
            queries,
            semantic=queries.semantic[[row]],
            uncertainty_embeds=queries.uncertainty_embeds[[row]],
            labels=queries.labels[[row]],
        )
        expected = gallery._searcher().judge(alone, "cosine")
        assert judged.signals[row] == pytest.approx(expected.signals[0], abs=1e-5)
        assert judged.correct[row] == expected.correct[0]


def test_a_query_with_nothing_of_its_class_to_find_is_left_out() -> None:
    queries = world(0, classes=5, each=6)
    some = judge_among_themselves(replace(queries, groups=np.where(queries.labels == 2, 0, np.arange(30))))
    assert some.lone == 6 and 2 not in some.classes
    with pytest.raises(ValueError, match="another one of its class to find"):
        judge_among_themselves(replace(queries, groups=queries.labels))


def test_confidence_is_a_probability_that_orders_and_promises_hold_on_new_classes(tmp_path: Path) -> None:
    kept, asked = halves(world(1, each=24))
    index = index_of(kept)
    index.calibration = fit_calibration(judge_among_themselves(world(2)), error_rate=0.2)
    index.save(tmp_path)
    index = IDMLIndex.load(tmp_path)
    result = index.search_embeddings(asked.semantic, asked.uncertainty_embeds, k=3)
    assert result.confidence is not None and result.abstained is not None and result.error_rate == 0.2
    right = result.labels[:, 0] == asked.labels
    bins = np.digitize(result.confidence, [0.25, 0.5, 0.75])
    accuracy = [right[bins == step].mean() for step in range(4) if (bins == step).sum() > 50]
    assert accuracy == sorted(accuracy) and accuracy[-1] - accuracy[0] > 0.3
    threshold = index.calibration.risk.threshold(0.2)
    assert threshold is not None
    assert result.abstained.tolist() == (result.confidence < threshold).tolist()
    assert 1 - right[~result.abstained].mean() <= 0.2
    new = world(3)
    few = index.search_embeddings(new.semantic, new.uncertainty_embeds, k=3, error_rate=0.05)
    many = index.search_embeddings(new.semantic, new.uncertainty_embeds, k=3, error_rate=0.5)
    assert few.abstained.sum() > many.abstained.sum()
    assert few.confidence.tolist() == many.confidence.tolist()
    # classes that the gallery does not have at all
    assert few.abstained.mean() > 0.9, few.abstained.mean()


def test_a_query_that_is_in_the_gallery_is_certain_unless_another_class_looks_the_same() -> None:
    queries = world(1)
    index = index_of(queries)
    index.calibration = fit_calibration(judge_among_themselves(world(2)))
    assert (index.search_embeddings(queries.semantic[:20], queries.uncertainty_embeds[:20]).confidence == 1).all()
    index.add_embeddings(
        queries.semantic[:20], queries.uncertainty_embeds[:20], labels=[0] * 20, class_names=["another"]
    )
    assert (index.search_embeddings(queries.semantic[:20], queries.uncertainty_embeds[:20]).confidence < 1).all()


def test_without_other_images_an_index_is_calibrated_on_its_own() -> None:
    queries = world(1)
    index = index_of(queries)
    own = index.calibrate(error_rate=0.3)
    assert own == fit_calibration(judge_among_themselves(queries), error_rate=0.3)
    with pytest.raises(ValueError, match="are not known"):
        IDMLIndex.from_embeddings(queries.semantic).calibrate()


def test_calibration_is_plain_numbers_and_comes_back_the_same() -> None:
    judged = judge_among_themselves(world(4))
    calibration = fit_calibration(judged)
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert again.confidence(judged.signals).tolist() == calibration.confidence(judged.signals).tolist()
    assert again.risk.threshold(0.3) == calibration.risk.threshold(0.3)
    entry = calibration.to_json() | {"signals": ["astrology"]}
    with pytest.raises(ValueError, match="astrology"):
        Calibration.from_json(entry)


def test_no_class_is_both_learnt_from_and_tested_on() -> None:
    """Signals that tell the class apart, and correctness that is a class's own, are worth nothing on other classes."""
    random = np.random.default_rng(0)
    classes = np.repeat(np.arange(100), 10)
    correct = (random.random(100) < 0.5)[classes]
    signals = random.standard_normal((100, len(SIGNALS)))[classes]
    assert 0.35 < fit_calibration(JudgedQueries(signals, correct, classes)).auroc < 0.65


def test_through_an_engine_an_index_is_as_confident() -> None:
    pytest.importorskip("faiss")
    index, queries = index_of(world(5)), world(6)
    index.calibration = fit_calibration(judge_among_themselves(world(7)))
    exact = index.search_embeddings(queries.semantic, queries.uncertainty_embeds)
    index.use_engine("ivf", nlist=8, nprobe=8)
    probed = index.search_embeddings(queries.semantic, queries.uncertainty_embeds)
    assert probed.confidence == pytest.approx(exact.confidence)
    with pytest.raises(ValueError, match="not calibrated for introspective search"):
        index.search_embeddings(queries.semantic, queries.uncertainty_embeds, metric="introspective", error_rate=0.1)
    assert (
        index.search_embeddings(queries.semantic, queries.uncertainty_embeds, metric="introspective").confidence
        is None
    )


def test_too_little_to_learn_from_is_said() -> None:
    ones = np.ones((40, len(SIGNALS)))
    with pytest.raises(ValueError, match="too few to calibrate"):
        fit_calibration(JudgedQueries(ones[:8], np.ones(8, dtype=bool), np.arange(8)))
    with pytest.raises(ValueError, match="all right or all wrong"):
        fit_calibration(JudgedQueries(ones, np.ones(40, dtype=bool), np.arange(40)))


@pytest.fixture(scope="module")
def emoji() -> ImageSet:
    return load_images("emoji-mini", split="train").select(range(300))


def calibrated(images: ImageSet, validation: ImageSet, **options: str) -> tuple[IDMLIndex, SearchResult]:
    model = IDMLModel.from_backbone("test_efficientnet", pretrained=False, embedding_dim=16, image_size=48)
    index = IDMLIndex.build(model, images, progress=False)
    index.calibrate(validation, progress=False, error_rate=0.5, **options)
    return index, index.search(validation.select(range(5)), k=2)


def test_calibrating_with_images_against_themselves(emoji: ImageSet) -> None:
    index, result = calibrated(emoji.select(range(100)), emoji.select(range(100, 300)))
    assert result.confidence is not None and ((result.confidence > 0) & (result.confidence < 1)).all()
    assert result.to_dicts()[0]["confidence"] == result.confidence[0]
    assert index.calibration is not None and index.calibration.queries + index.calibration.lone_queries == 200


def test_calibrating_against_the_index_matches_classes_by_name(emoji: ImageSet) -> None:
    every = np.arange(300)
    index, _ = calibrated(emoji.select(every % 3 > 0), emoji.select(every % 3 == 0), against="index")
    assert index.calibration is not None and index.calibration.queries == 100
    strangers = load_images("emoji-mini", split="test").select(range(100))
    with pytest.raises(ValueError, match="all right or all wrong"):
        index.calibrate(strangers, against="index", progress=False)
    with pytest.raises(ValueError, match="takes labelled images"):
        index.calibrate(replace(strangers, labels=np.full(100, -1)), progress=False)
