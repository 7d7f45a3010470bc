from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.confidence.calibration import Calibration
from idml_hf.confidence.class_means import ClassMeans
from idml_hf.confidence.collection import Collection
from idml_hf.confidence.features import INPUTS, KNOWN, Matches, MatchInputs, OwnImages, match_inputs
from idml_hf.confidence.labelled_queries import LabelledQueries, Outcomes, judge_among_themselves
from idml_hf.data import ImageSet, load_images
from idml_hf.index.results import SearchResult
from idml_hf.search.arrays import unit_rows


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


def test_inputs_of_a_hand_made_gallery() -> None:
    labels = np.array([0, 0, 1, -1])
    matches = Matches(np.array([[0.9, 0.8, 0.5, 0.4], [0.7, 0.6, 0.2, 0.1]]), np.array([[0, 1, 2, 3], [3, 0, 1, 2]]))
    theirs = {0: ([1.0, 0.75, 0.3, 0.1], [0, 1, 3, 2]), 3: ([1.0, 0.3, 0.2, 0.0], [3, 0, 1, 2])}

    def search(positions: np.ndarray) -> Matches:
        rows = [theirs[int(position)] for position in positions]
        return Matches(np.array([scores for scores, _ in rows]), np.array([found for _, found in rows]))

    gallery = unit_rows(np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]), "rows")
    cohort = unit_rows(np.array([[1, 0, 0, 0], [0, 0, 1, 0]]), "rows")
    collection = Collection(gallery, np.array([4.0, 6.0, 7.0, 5.0]), labels, cohort)
    asked = np.array([[0.6, 0.0, 0.8, 0.0], [0.0, 0.0, 0.6, 0.8]], dtype=np.float32)
    u = np.array([2.0, 3.0])
    found = match_inputs(collection, asked, u, matches, use=KNOWN, search=search)
    # the second query's match is of unknown class: the next item counts as of another, none agrees, and its similarity
    # stands for that of its class
    half = 1 / np.sqrt(2)
    mean = 0.6 * np.cos(np.pi / 8)
    sharp, soft = (
        [
            (1 + np.exp(-0.1 / heat)) / (1 + np.exp(-0.1 / heat) + np.exp(-0.4 / heat) + np.exp(-0.5 / heat)),
            1 / (1 + np.exp(-0.1 / heat) + np.exp(-0.5 / heat) + np.exp(-0.6 / heat)),
        ]
        for heat in (0.03, 0.1)
    )
    near = 1.4 * half
    expected = {
        "similarity": [0.9, 0.7],
        "margin": [0.4, 0.1],
        "impostor_margin": [0.6, near - half],
        "class_margin": [mean - 0.8, near - 0.6],
        "class_similarity": [mean, near],
        "compactness": [half, 0],
        "few_margin": [(0.5 + 0.4) / 3 - 0.1 / 3, 0.6 / 3 - (0.5 + 0.1) / 3],
        "agreement": [0.1, 0],
        "vote": sharp,
        "soft_vote": soft,
        "query_density": [0.9 - 1.7 / 3, 0.7 - 0.9 / 3],
        "match_density": [0.6 - (1 + half) / 4, near - (1 + half) / 4],
        "uncertainty": [2, 3],
        "match_uncertainty": [4, 5],
        "cohort_similarity": [0.7, 0.3],
        "mutual_margin": [0.6, 0.4],
    }
    for column, name in zip(found.values.T, KNOWN, strict=True):
        assert column == pytest.approx(expected[name], abs=1e-6), name
    own = OwnImages(np.array([1, 1]), np.array([7, 8]), np.array([8, 8, 7, 9]))
    theirs[0] = ([1.0, 0.75, 0.3, 0.1], [0, 1, 2, 3])
    hidden = match_inputs(collection, asked, u, matches, own, use=["mutual_margin"], search=search)
    assert hidden.values[0] == pytest.approx([0.9 - 0.1])


def test_what_a_query_must_not_see_is_taken_out_of_its_matches() -> None:
    matches = Matches(np.array([[0.9, 0.8, 0.5], [0.7, 0.6, -np.inf]]), np.array([[0, 1, 2], [1, 0, -1]]))
    own = OwnImages(np.array([5, 5]), np.array([1, 2]), np.array([1, 2, 3]))
    seen = matches.without(own.hidden(matches.positions))
    assert seen.positions.tolist() == [[1, 2, -1], [0, -1, -1]]
    assert seen.scores.tolist() == [[0.8, 0.5, -np.inf], [0.6, -np.inf, -np.inf]]


def test_class_margin_is_the_difference_of_cosines_with_class_means() -> None:
    queries = world(8, classes=6, each=5)
    asked = world(9, classes=6, each=3)
    means = ClassMeans.of(queries.semantic, np.where(queries.labels == 5, -1, queries.labels * 10))
    matched = np.array([0, 10, 20, 30, 40, -1] * 3)
    found, near = means.margin(asked.semantic, matched, np.full(18, 0.5))
    directions = np.stack([queries.semantic[queries.labels == label].mean(0) for label in range(5)])
    cosines = asked.semantic @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
    for row, label in enumerate(matched // 10):
        own = 0.5 if label < 0 else cosines[row, label]
        assert near[row] == pytest.approx(own, abs=1e-6)
        assert found[row] == pytest.approx(own - np.delete(cosines[row], label if label >= 0 else []).max(), abs=1e-6)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_judged_query_sees_what_it_would_see_if_its_group_or_its_class_were_not_there(grouped: bool) -> None:
    queries = world(0, classes=9, each=6)
    groups = np.tile([0, 0, 1, 1, 2, 2], 9) if grouped else None
    judged = judge_among_themselves(replace(queries, groups=groups))
    for at in range(0, 108, 5):
        row, present = at % 54, at < 54
        rest = queries.labels != queries.labels[row]
        if present:
            rest |= np.arange(54) != row if groups is None else groups != groups[row]
        gallery = IDMLIndex.from_embeddings(
            queries.semantic[rest],
            queries.uncertainty_embeds[rest],
            labels=queries.labels[rest],
            class_names=queries.class_names,
        )
        expected = gallery._searcher().judge(queries.select(np.array([row])), "cosine")
        assert judged.present[at] == present == expected.present[0]
        assert judged.inputs[at] == pytest.approx(expected.inputs[0], abs=1e-5, nan_ok=True)
        assert judged.correct[at] == expected.correct[0]
        assert judged.classes[at] == queries.labels[row] and judged.answers[at] == expected.answers[0]


def test_a_class_of_more_images_than_are_looked_at_is_left_out_as_a_whole() -> None:
    random = np.random.default_rng(0)
    rows = np.concatenate([np.eye(8)[np.zeros(150, dtype=int)], random.standard_normal((60, 8))])
    rows += 0.01 * random.standard_normal(rows.shape)
    labels = np.repeat([0, 1, 2], [150, 30, 30])
    judged = judge_among_themselves(LabelledQueries(unit_rows(rows, "rows"), np.ones((210, 1), np.float32), labels))
    assert judged.present.sum() == 210 and len(judged.present) == 420
    assert (judged.answers != judged.classes)[~judged.present].all()


def test_queries_are_drawn_where_there_are_more_than_asked_for() -> None:
    done: list[int] = []
    judged = judge_among_themselves(world(3), most=100, progress=done.append)
    assert judged.present.sum() == (~judged.present).sum() == 100 == sum(done)
    assert np.array_equal(judged.classes, judge_among_themselves(world(3), most=100).classes)


def test_a_query_with_nothing_of_its_class_to_find_is_left_out() -> None:
    queries = world(0, classes=5, each=6)
    some = judge_among_themselves(replace(queries, groups=np.where(queries.labels == 2, 0, np.arange(30))))
    assert some.lone == 6 and 2 not in some.classes[some.present] and 2 in some.classes
    with pytest.raises(ValueError, match="another one of its class to find"):
        judge_among_themselves(replace(queries, groups=queries.labels))


def test_confidence_is_a_probability_that_orders_and_promises_hold_on_new_classes(tmp_path: Path) -> None:
    kept, asked = halves(world(1, each=24))
    index = index_of(kept)
    index.calibration = Calibration.fit(judge_among_themselves(world(2)), absent=0, error_rate=0.2)
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
    assert result.bar == threshold
    assert (result.confidence[~result.abstained] >= threshold).all()
    assert [entry["abstained"] for entry in result.to_dicts()] == result.abstained.tolist()
    assert 1 - right[~result.abstained].mean() <= 0.2
    new = world(3)
    few = index.search_embeddings(new.semantic, new.uncertainty_embeds, k=3, error_rate=0.05)
    many = index.search_embeddings(new.semantic, new.uncertainty_embeds, k=3, error_rate=0.5)
    assert few.abstained.sum() > many.abstained.sum()
    assert few.confidence.tolist() == many.confidence.tolist()
    # classes that the gallery does not have at all
    assert few.abstained.mean() > 0.9, few.abstained.mean()


def test_a_copy_must_pass_the_test_like_any_other_query() -> None:
    queries = world(1)
    index = index_of(queries)
    index.calibration = Calibration.fit(judge_among_themselves(world(2)), error_rate=0.2)
    copies = index.search_embeddings(queries.semantic, queries.uncertainty_embeds)
    assert copies.confidence is not None and copies.abstained is not None and copies.bar is not None
    assert copies.confidence.max() < 1
    assert np.array_equal(copies.abstained, copies.confidence < copies.bar)
    never = index.search_embeddings(queries.semantic, queries.uncertainty_embeds, error_rate=1e-6)
    assert never.abstained is not None and never.abstained.all() and never.bar == np.inf
    assert never.to_dicts()[0]["bar"] is None and "no confidence is enough" in never.reason(0)


def test_one_picture_under_two_classes_is_said_to_be_ambiguous() -> None:
    queries = world(1)
    index = index_of(queries)
    index.calibration = Calibration.fit(judge_among_themselves(world(2)), error_rate=0.3, absent=0)
    first = index.search_embeddings(queries.semantic[:20], queries.uncertainty_embeds[:20])
    assert first.abstained is not None and not first.abstained.all() and set(first.rivals) == {""}
    index.add_embeddings(
        queries.semantic[:20], queries.uncertainty_embeds[:20], labels=[0] * 20, class_names=["another"]
    )
    again = index.search_embeddings(queries.semantic[:20], queries.uncertainty_embeds[:20])
    assert again.abstained is not None and again.abstained.all() and set(again.rivals) == {"another"}
    assert again.reason(0) == f'the same picture is filed under "{queries.class_names[0]}" and "another"'


@pytest.mark.parametrize("kind", ["random", "constant", "opposite"])
def test_what_is_like_nothing_seen_is_not_answered(kind: str) -> None:
    queries = world(1, classes=40)
    wide = np.concatenate([queries.semantic, np.zeros((len(queries.labels), 24), np.float32)], 1)
    index = IDMLIndex.from_embeddings(wide, queries.uncertainty_embeds, labels=queries.labels)
    # nearly all first matches are right, so that any threshold would keep this promise
    index.calibrate(absent=0, error_rate=0.9, progress=False)
    strange = {
        "random": np.random.default_rng(0).standard_normal((200, 32)),
        "constant": np.ones((200, 32)),
        "opposite": np.eye(32)[np.full(200, 31)] - 0.01 * np.eye(32)[np.zeros(200, dtype=int)],
    }[kind]
    result = index.search_embeddings(strange, np.full((200, 3), 5.0))
    assert result.abstained is not None and result.confidence is not None and result.bar is not None
    assert result.bar > 0 and result.abstained.mean() > 0.95
    assert (result.confidence[~result.abstained] >= result.bar).all()


def test_the_more_classes_are_absent_the_fewer_queries_are_answered() -> None:
    outcomes = judge_among_themselves(world(2, classes=200))
    shares = [Calibration.fit(outcomes, absent=absent).risk.coverage(0.3) for absent in (0, 0.3, 0.6)]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[2]
    with pytest.raises(ValueError, match="absent must be from 0 to below 1"):
        Calibration.fit(outcomes, absent=1.0)
    for wrong in ("0.3", None, True, float("nan"), [0.3]):
        with pytest.raises(ValueError, match="absent must be"):
            Calibration.fit(outcomes, absent=wrong)
        with pytest.raises(ValueError, match="error_rate must be"):
            Calibration.fit(outcomes, error_rate=wrong)
    with pytest.raises(ValueError, match="absence of a class"):
        Calibration.fit(outcomes.select(outcomes.present), absent=0.3)


def test_the_table_says_what_can_be_promised_and_what_it_would_take() -> None:
    calibration = Calibration.fit(judge_among_themselves(world(2)), absent=0)
    for row in calibration.table((0.01, 0.3)):
        assert (row["bar"] is None) == (row["answered"] == 0) == (row["more_classes"] != 0)
        assert row["answered"] <= row["hindsight"] + 1e-9
    assert "60 classes" in calibration.describe() and "at most 5 % wrong" in calibration.describe()


def test_without_other_images_an_index_is_calibrated_on_its_own() -> None:
    queries = world(1)
    index = index_of(queries)
    own = index.calibrate(error_rate=0.3, progress=False)
    assert replace(own, surprise=()) == Calibration.fit(judge_among_themselves(queries), error_rate=0.3)
    with pytest.raises(ValueError, match="are not known"):
        IDMLIndex.from_embeddings(queries.semantic).calibrate()


def test_calibration_is_plain_numbers_and_comes_back_the_same() -> None:
    judged = judge_among_themselves(world(4))
    calibration = Calibration.fit(judged)
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    values = judged.signals(calibration.signals)
    assert again.confidence(values).tolist() == calibration.confidence(values).tolist()
    assert again.outside(values).tolist() == calibration.outside(values).tolist()
    assert again.risk.threshold(0.3) == calibration.risk.threshold(0.3)
    entry = calibration.to_json() | {"signals": ["astrology"]}
    with pytest.raises(ValueError, match="astrology"):
        Calibration.from_json(entry)


def outcomes_of(inputs: np.ndarray, correct: np.ndarray, classes: np.ndarray) -> Outcomes:
    answers = np.where(correct, classes, classes + 1000)
    return Outcomes(inputs, correct, classes, answers, np.ones(len(classes), dtype=bool), np.full(len(classes), -1))


def test_no_class_is_both_learnt_from_and_tested_on() -> None:
    """Inputs that tell the class apart, and correctness that is a class's own, are worth nothing on other classes."""
    random = np.random.default_rng(0)
    classes = np.repeat(np.arange(100), 10)
    correct = (random.random(100) < 0.5)[classes]
    inputs = random.standard_normal((100, len(INPUTS)))[classes]
    assert 0.35 < Calibration.fit(outcomes_of(inputs, correct, classes), absent=0).auroc < 0.65


def test_an_input_beyond_all_seen_is_no_more_certain_or_not_answered() -> None:
    random = np.random.default_rng(0)
    inputs = np.zeros((400, len(INPUTS)))
    inputs[:, 0] = random.random(400)
    calibration = Calibration.fit(outcomes_of(inputs, random.random(400) < inputs[:, 0], np.arange(400)), absent=0)
    asked = np.zeros((3, len(INPUTS)))
    asked[:, 0] = [5.0, inputs[:, 0].max(), -5.0]
    verdict = calibration.predict(MatchInputs(asked, np.full(3, -1)), 0.5)
    assert verdict.confidence[0] == verdict.confidence[1]
    assert verdict.outside.tolist() == [False, False, True] and verdict.abstained[2]


def test_through_an_engine_an_index_is_as_confident() -> None:
    pytest.importorskip("faiss")
    index, queries = index_of(world(5)), world(6)
    index.calibration = Calibration.fit(judge_among_themselves(world(7)))
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
    ones = np.ones((40, len(INPUTS)))
    with pytest.raises(ValueError, match="too few to calibrate"):
        Calibration.fit(outcomes_of(ones[:8], np.ones(8, dtype=bool), np.arange(8)), absent=0)
    with pytest.raises(ValueError, match="all right or all wrong"):
        Calibration.fit(outcomes_of(ones, np.ones(40, dtype=bool), np.arange(40)), absent=0)


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
    with pytest.raises(ValueError, match=r"too few to calibrate|all right or all wrong"):
        index.calibrate(strangers, against="index", progress=False)
    with pytest.raises(ValueError, match="takes labelled images"):
        index.calibrate(replace(strangers, labels=np.full(100, -1)), progress=False)


def test_a_cohort_is_one_more_input_and_is_saved_with_the_index(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    queries, asked = world(5), world(6)
    cohort = unit_rows(random.standard_normal((300, 8)), "rows")
    index = index_of(queries)
    index.calibrate(progress=False)
    assert index.calibration is not None and "cohort_similarity" not in index.calibration.signals
    judged = judge_among_themselves(replace(queries, cohort=cohort))
    index.calibration, index._cohort = Calibration.fit(judged), cohort
    assert index.calibration.signals == INPUTS
    found = index.search_embeddings(asked.semantic, asked.uncertainty_embeds)
    assert found.confidence is not None and np.isfinite(found.confidence).all() and found.confidence.max() > 0.2
    among = index.search_embeddings(
        asked.semantic, asked.uncertainty_embeds, where={"class": list(queries.class_names)}
    )
    assert among.confidence == pytest.approx(found.confidence)
    index.save(tmp_path)
    loaded = IDMLIndex.load(tmp_path).search_embeddings(asked.semantic, asked.uncertainty_embeds)
    assert loaded.confidence == pytest.approx(found.confidence, abs=2e-3)
    # without the cohort nothing can be said
    index._cohort = None
    assert index.search_embeddings(asked.semantic, asked.uncertainty_embeds).abstained.all()


def test_what_is_unlike_any_training_image_seen_is_not_answered() -> None:
    random = np.random.default_rng(0)
    inputs = np.zeros((400, len(INPUTS)))
    inputs[:, 0], inputs[:, -1] = random.random(400), random.uniform(0.3, 0.9, 400)
    calibration = Calibration.fit(outcomes_of(inputs, random.random(400) < inputs[:, 0], np.arange(400)), absent=0)
    asked = np.zeros((3, len(INPUTS)))
    asked[:, 0], asked[:, -1] = 0.9, [0.1, 0.5, 0.99]
    assert INPUTS[-1] == "cohort_similarity" and calibration.outside(asked).tolist() == [True, False, True]


def test_a_collection_without_labels_is_judged_as_the_calibration_saw_it() -> None:
    queries = world(5, each=7)  # so each query has six of its class to find, as below
    outcomes = judge_among_themselves(queries, hide_labels=True)
    assert (outcomes.correct == judge_among_themselves(queries).correct).all() and (outcomes.rivals < 0).all()
    new = world(7)
    # the same classes' other images are asked; the index does not know any class
    half = np.arange(len(new.labels)) % 2 == 0
    index = IDMLIndex.from_embeddings(new.semantic[half], new.uncertainty_embeds[half])
    index.calibration = Calibration.fit(outcomes, absent=0.0)
    found = index.search_embeddings(new.semantic[~half], new.uncertainty_embeds[~half], k=1, error_rate=0.3)
    right = new.labels[half][found.ids[:, 0]] == new.labels[~half]
    assert found.confidence is not None and found.abstained is not None
    assert roc_auc_score(right, found.confidence) > 0.7
    given = ~found.abstained
    # not clearly broken
    assert given.mean() > 0.1 and binom.sf((~right[given]).sum() - 1, given.sum(), 0.3) > 0.05


def test_an_index_without_labels_is_calibrated_without_looking_at_them(emoji: ImageSet) -> None:
    validation = emoji.select(range(100, 300))
    plain = replace(emoji.select(range(100)), labels=np.full(100, -1))
    index, result = calibrated(plain, validation)
    assert index.calibration is not None and result.confidence is not None and np.isfinite(result.confidence).all()
    labelled, _ = calibrated(emoji.select(range(100)), validation)
    assert labelled.calibration is not None and labelled.calibration.auroc != index.calibration.auroc
