"""The promise: among the queries that are answered, at most so many are wrong, in 95 of 100 calibrations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from idml_hf.confidence.risk_control import RiskControl, _allowed_errors, clopper_pearson_upper

CALIBRATIONS = 1000
GRID = np.linspace(0, 1, 100_001)

POPULATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda confidence: confidence,
    "overconfident": lambda confidence: 0.6 + 0.39 * confidence,
    "worst where most confident": lambda confidence: np.where(confidence > 0.97, 0.8, np.minimum(confidence + 0.2, 1)),
}


@pytest.mark.parametrize("population", POPULATIONS)
def test_at_most_5_percent_of_1000_calibrations_break_a_promise(population: str) -> None:
    """Queries with uniform confidence, right with a known probability, so that the error rate of a threshold is known.

    The number of broken promises is at most that of 1,000 fair draws at 5 %, with a tolerance of one in 1,000.
    """
    right = POPULATIONS[population]
    risk_above = np.cumsum((1 - right(GRID))[::-1])[::-1] / np.arange(len(GRID), 0, -1)
    tolerated = binom.ppf(0.999, CALIBRATIONS, 0.05)
    assert tolerated == 73
    random = np.random.default_rng(0)
    broken, answering = dict.fromkeys((0.05, 0.1, 0.2), 0), dict.fromkeys((0.05, 0.1, 0.2), 0)
    for _ in range(CALIBRATIONS):
        confidence = random.random(600)
        correct = random.random(600) < right(confidence)
        control = RiskControl.test(random.random(200), confidence, correct)
        for promise in broken:
            threshold = control.threshold(promise)
            if threshold is not None:
                answering[promise] += 1
                broken[promise] += risk_above[np.searchsorted(GRID, threshold).clip(max=len(GRID) - 1)] > promise
    assert max(broken.values()) <= tolerated, broken
    assert answering[0.2] > CALIBRATIONS / 2, answering


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
    for _ in range(200):
        classes = np.repeat(np.arange(150), 20)
        correct = (random.random(150) > 0.16)[classes]
        confidence = random.random(3000)
        for way, given in (("classes", classes), ("queries", None)):
            control = RiskControl.test(random.random(200) * 0.5 + 0.5, confidence, correct, given)
            broken[way] += control.threshold(0.15) is not None  # the error rate is 0.16 at every threshold
    assert broken["classes"] <= binom.ppf(0.999, 200, 0.05) < broken["queries"], broken


@pytest.mark.parametrize(("wrong", "number"), [(0, 1), (0, 59), (3, 40), (39, 40), (40, 40), (17, 1000)])
def test_clopper_pearson_is_scipys(wrong: int, number: int) -> None:
    expected = binomtest(wrong, number, alternative="less").proportion_ci(0.95, method="exact").high
    assert clopper_pearson_upper(np.array(wrong), np.array(number), 0.05) == pytest.approx(expected)


def test_allowed_errors_are_the_most_that_keep_the_bound() -> None:
    number = np.arange(1, 300)
    for promise in (0.05, 0.2, 0.5):
        allowed = _allowed_errors(number, promise, 0.05)
        possible = allowed >= 0
        assert (clopper_pearson_upper(allowed, number, 0.05)[possible] <= promise + 1e-12).all()
        assert (clopper_pearson_upper(allowed + 1, number, 0.05) > promise).all()
    assert _allowed_errors(np.array([58, 59]), 0.05, 0.05).tolist() == [-1, 0]


def test_perfect_answers_are_all_given_and_hopeless_ones_never() -> None:
    random = np.random.default_rng(0)
    plan, confidence = random.random(100), random.random(400)
    perfect = RiskControl.test(plan, confidence, np.ones(400, dtype=bool))
    assert perfect.threshold(0.2) == 0.0 and perfect.coverage(0.2) == 1.0
    hopeless = RiskControl.test(plan, confidence, random.random(400) < 0.3)
    assert hopeless.threshold(0.1) is None and hopeless.coverage(0.1) == 0.0
    assert hopeless.threshold(0.9) == 0.0
    for promise in (0.0, 1.0):
        with pytest.raises(ValueError, match="must be in"):
            perfect.threshold(promise)


def test_more_accepted_errors_never_mean_fewer_answers_here() -> None:
    random = np.random.default_rng(3)
    confidence = random.random(2000)
    control = RiskControl.test(random.random(500), confidence, random.random(2000) < confidence)
    coverage = [control.coverage(promise) for promise in (0.15, 0.2, 0.3, 0.4, 0.5)]
    assert coverage == sorted(coverage) and coverage[0] > 0 and coverage[-1] > 0.8
