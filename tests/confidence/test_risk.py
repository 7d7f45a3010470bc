"""The promise: among the queries that are answered, at most so many are wrong, in 95 of 100 calibrations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from idml_hf.confidence.calibration import Calibration
from idml_hf.confidence.families import families
from idml_hf.confidence.features import MatchInputs
from idml_hf.confidence.labelled_queries import LabelledQueries, Outcomes, judge_among_themselves
from idml_hf.confidence.risk_control import RiskControl, clopper_pearson_upper, effective_numbers
from idml_hf.search.arrays import unit_rows

GRID = np.linspace(0, 1, 100_001)

POPULATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda confidence: confidence,
    "overconfident": lambda confidence: 0.6 + 0.39 * confidence,
    "worst where most confident": lambda confidence: np.where(confidence > 0.97, 0.8, np.minimum(confidence + 0.2, 1)),
}


@pytest.mark.parametrize("calibrations", [200, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("population", POPULATIONS)
def test_at_most_5_percent_of_calibrations_break_a_promise(population: str, calibrations: int) -> None:
    """Queries with uniform confidence, right with a known probability, so that the error rate of a threshold is known.

    The number of broken promises is at most that of so many fair draws at 5 %, with a tolerance of one in 1,000.
    """
    right = POPULATIONS[population]
    risk_above = np.cumsum((1 - right(GRID))[::-1])[::-1] / np.arange(len(GRID), 0, -1)
    tolerated = binom.ppf(0.999, calibrations, 0.05)
    random = np.random.default_rng(0)
    broken, answering = dict.fromkeys((0.05, 0.1, 0.2), 0), dict.fromkeys((0.05, 0.1, 0.2), 0)
    for _ in range(calibrations):
        confidence = random.random(600)
        correct = random.random(600) < right(confidence)
        control = RiskControl.test(confidence, correct)
        for promise in broken:
            threshold = control.threshold(promise)
            if threshold is not None:
                answering[promise] += 1
                broken[promise] += risk_above[np.searchsorted(GRID, threshold).clip(max=len(GRID) - 1)] > promise
    assert max(broken.values()) <= tolerated, broken
    assert answering[0.2] > calibrations / 2, answering


def test_a_careless_threshold_breaks_the_same_promise() -> None:
    """The simulation can tell: without the bound, half of the thresholds break the promise."""
    random = np.random.default_rng(0)
    broken = 0
    for _ in range(200):
        confidence = random.random(600)
        correct = random.random(600) < confidence
        order = np.argsort(-confidence)
        error = np.cumsum(~correct[order]) / np.arange(1, 601)
        last = np.flatnonzero(error <= 0.2)
        broken += len(last) > 0 and (1 - confidence[order][last[-1]]) / 2 > 0.2
    assert broken > 50


def test_classes_that_are_hard_as_a_whole_do_not_break_the_promise() -> None:
    """150 classes of 20 queries each; a class is either easy or hopeless, so 3,000 queries are worth far fewer."""
    random = np.random.default_rng(0)
    broken = {"classes": 0, "queries": 0}
    for _ in range(100):
        classes = np.repeat(np.arange(150), 20)
        correct = (random.random(150) > 0.151)[classes]
        confidence = random.random(3000)
        for way, given in (("classes", classes), ("queries", None)):
            control = RiskControl.test(confidence, correct, given)
            broken[way] += control.threshold(0.15) is not None  # the error rate is 0.151 at every threshold
    assert broken["classes"] <= binom.ppf(0.999, 100, 0.05) and broken["classes"] < broken["queries"], broken


@pytest.mark.parametrize(("wrong", "number"), [(0, 1), (0, 59), (3, 40), (39, 40), (40, 40), (17, 1000)])
def test_clopper_pearson_is_scipys(wrong: int, number: int) -> None:
    expected = binomtest(wrong, number, alternative="less").proportion_ci(0.95, method="exact").high
    assert clopper_pearson_upper(np.array(wrong), np.array(number), 0.05) == pytest.approx(expected)


@pytest.mark.parametrize("calibrations", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("absent", [0.0, 0.5, 0.9])
def test_twins_that_are_taken_for_each_other_do_not_break_the_promise(absent: float, calibrations: int) -> None:
    """Classes come in pairs. A sixth of the pairs are look-alikes whose queries are answered at random.

    Queries of absent classes are as confident as others in look-alike pairs, and less so elsewhere. Counted with
    classes and with families as the units of chance; the error rate of a threshold is known from a large sample.
    """
    size, each = 2, 8
    random = np.random.default_rng(0)

    def draw(number: int) -> tuple[np.ndarray, ...]:
        classes = np.repeat(np.arange(number), each)
        alike = (random.random(number // size + 1) < 1 / 6)[classes // size]
        confidence = random.random(len(classes))
        right = np.where(alike, random.random(len(classes)) < 1 / size, random.random(len(classes)) < 0.9 + confidence)
        sibling = classes // size * size + (classes + random.integers(1, size, len(classes))) % size
        stranger = random.integers(0, number, len(classes)) + number
        answers = np.where(right, classes, np.where(alike, sibling, stranger))
        lost = np.where(alike, confidence, confidence * random.random(len(classes)) ** 2)
        return classes, confidence, right, answers, lost, np.where(alike, sibling, stranger)

    _, confidence, right, _, lost, _ = draw(4000)
    wrong = (1 - absent) * (confidence[~right] >= GRID[::1000, None]).sum(1) / len(right)
    without = absent * (lost >= GRID[::1000, None]).mean(1)
    risk = (wrong + without) / ((1 - absent) * (confidence >= GRID[::1000, None]).mean(1) + without + 1e-12)
    broken, answering = {"families": 0, "classes": 0}, 0
    promise = float(np.sort(risk)[2 * len(risk) // 3])
    for _ in range(calibrations):
        classes, confidence, right, answers, lost, taken = draw(120)
        both = np.concatenate([classes, classes])
        unit = {"families": families(both, np.concatenate([answers, taken])), "classes": both}
        weight = np.repeat([1 - absent, absent], len(classes))
        for name, units in unit.items():
            kept = weight > 0
            control = RiskControl.test(
                np.concatenate([confidence, lost])[kept],
                np.concatenate([right, np.zeros(len(right), dtype=bool)])[kept],
                units[kept],
                weight[kept],
            )
            threshold = control.threshold(promise)
            if threshold is not None:
                answering += name == "families"
                broken[name] += risk[np.searchsorted(GRID[::1000], threshold).clip(max=len(risk) - 1)] > promise
    assert broken["families"] <= binom.ppf(0.999, calibrations, 0.05), broken
    assert answering > 0 or absent == 0.9


def test_effective_numbers_count_families_that_stand_and_fall_together_once() -> None:
    answers, units = np.ones((1, 200)), np.repeat(np.arange(20), 10)
    wrong = np.repeat(np.arange(20) < 5, 10)[None].astype(float)
    alone = effective_numbers(answers, np.arange(200)[None] % 4 == 0, np.arange(200))[0]
    assert alone == pytest.approx([200], rel=0.05)
    assert 12 < effective_numbers(answers, wrong, units)[0][0] <= 20
    # where nothing is wrong, families count as they do where much is
    both = effective_numbers(np.ones((2, 200)), np.concatenate([0 * wrong, wrong]), units)[0]
    assert both[0] == pytest.approx(both[1], rel=0.25)


def test_families_are_joined_by_what_their_queries_are_taken_for() -> None:
    classes = np.repeat([1, 2, 3, 4, 5], 8)
    answers = np.repeat([2, 1, 2, 5, 9], 8)
    # class 4 is taken for all sorts of others
    answers[24:32] = [5, 6, 7, 8, 10, 11, 12, 13]
    found = families(classes, answers)[::8]
    assert found[0] == found[1] == found[2] and len(set(found.tolist())) == 3


def test_the_bar_is_never_below_the_least_confident_query_tested() -> None:
    confidence = np.random.default_rng(0).uniform(0.4, 1, 500)
    control = RiskControl.test(confidence, np.ones(500, dtype=bool))
    assert control.threshold(0.5) == confidence.min() and control.coverage(0.5) == 1.0


def test_more_families_are_said_to_help_where_they_would() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(60)
    few = RiskControl.test(confidence, random.random(60) < 0.5 + confidence)
    assert few.threshold(0.02) is None and (few.missing(0.02) or 0) > 1 and few.missing(0.6) == 0
    hopeless = RiskControl.test(confidence, np.arange(60) % 2 == 0)
    assert hopeless.missing(0.001) is None or few.missing(0.001) is not None


def test_perfect_answers_are_all_given_and_hopeless_ones_never() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(400)
    perfect = RiskControl.test(confidence, np.ones(400, dtype=bool))
    assert perfect.threshold(0.2) == confidence.min() and perfect.coverage(0.2) == 1.0
    hopeless = RiskControl.test(confidence, random.random(400) < 0.3)
    assert hopeless.threshold(0.1) is None and hopeless.coverage(0.1) == 0.0
    assert hopeless.threshold(0.9) == confidence.min()
    for promise in (0.0, 1.0):
        with pytest.raises(ValueError, match="must be between 0 and 1"):
            perfect.threshold(promise)


def test_more_accepted_errors_never_mean_fewer_answers_here() -> None:
    random = np.random.default_rng(3)
    confidence = random.random(2000)
    control = RiskControl.test(confidence, random.random(2000) < confidence)
    coverage = [control.coverage(promise) for promise in (0.15, 0.2, 0.3, 0.4, 0.5)]
    assert coverage == sorted(coverage) and coverage[0] > 0 and coverage[-1] > 0.8


@pytest.mark.parametrize("calibrations", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_pictures_filed_under_two_classes_do_not_break_the_promise(calibrations: int) -> None:
    """A fifth of the pictures is there twice, under two classes. Counted on fresh classes of the same world."""

    def world(random: np.random.Generator) -> LabelledQueries:
        labels = np.repeat(np.arange(40), 8)
        spread = random.uniform(0.2, 1.0, 40)[labels]
        rows = random.standard_normal((40, 12))[labels] + spread[:, None] * random.standard_normal((320, 12))
        again = random.choice(320, 64, replace=False)
        rows, labels = np.concatenate([rows, rows[again]]), np.append(labels, (labels[again] + 1) % 40)
        return LabelledQueries(unit_rows(rows, "rows"), np.ones((384, 1), np.float32), labels)

    random = np.random.default_rng(0)
    broken = dict.fromkeys((0.1, 0.2), 0)
    for _ in range(calibrations):
        calibration = Calibration.fit(judge_among_themselves(world(random)), absent=0.0)
        fresh = [judge_among_themselves(world(random)) for _ in range(3)]
        asked = Outcomes.joined([some.select(some.present) for some in fresh])
        for promise in broken:
            verdict = calibration.predict(MatchInputs(asked.signals(calibration.signals), asked.rivals), promise)
            given = ~verdict.abstained
            broken[promise] += (~asked.correct[given]).sum() > promise * given.sum()
    # fresh draws have their own luck too, so a little more than 5 % of them are above the promise
    assert max(broken.values()) <= binom.ppf(0.999, calibrations, 0.1), broken
