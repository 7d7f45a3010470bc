from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from idml_hf.evaluation import ood_metrics, rank, retrieval_metrics, uncertainty_metrics
from idml_hf.evaluation.uncertainty import auroc, risk_coverage

# Ten items on a circle in two classes, of which some are nearest to the other class.
ANGLES = np.array([0.0, 0.1, 0.22, 0.35, 0.5, 0.66, 0.83, 1.01, 1.2, 1.4])
X = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
Y = np.array([0, 0, 1, 0, 1, 1, 0, 1, 1, 1])
CORRECT = rank(X, Y).correct


def area_by_permutation(certainty: Any, correct: Any) -> float:
    """Mean AURC over all orders that the certainty allows, by direct sum."""
    number, areas = len(correct), []
    for order in permutations(range(number)):
        if all(certainty[a] >= certainty[b] for a, b in pairwise(order)):
            errors = [not correct[i] for i in order]
            areas.append(sum(sum(errors[:n]) / n for n in range(1, number + 1)) / number)
    return float(np.mean(areas))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_the_orders_of_tied_items(pairs: list[tuple[int, bool]]) -> None:
    certainty, correct = zip(*pairs, strict=True)
    assert risk_coverage(certainty, correct)[1].mean() == pytest.approx(area_by_permutation(certainty, correct))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auroc_equals_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    score, positive = map(np.array, zip(*pairs, strict=True))
    if positive.all() or not positive.any():
        assert np.isnan(auroc(score, positive))
    else:
        assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))


def test_equals_independent_formulas() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 4)), rng.integers(0, 20, 300)
    uncertainty, norms = rng.random(300).round(2), rng.random(300)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = similarity.argmax(1)
    correct = y[nearest] == y
    rival = np.where(y[None, :] == y[nearest][:, None], -np.inf, similarity).max(1)
    signals = {
        "max_similarity": similarity.max(1),
        "margin": similarity.max(1) - rival,
        "norm": norms,
    }
    metrics = uncertainty_metrics(x, uncertainty, y, norms=norms)
    assert metrics["r_auroc"] == pytest.approx(roc_auc_score(correct, -uncertainty))
    assert metrics["error_rate"] == pytest.approx(np.mean(~correct))
    perfect = np.cumsum(np.sort(~correct)) / np.arange(1, 301)
    for name, certainty in signals.items():
        assert metrics[f"auroc_{name}"] == pytest.approx(roc_auc_score(correct, certainty))
        risk = np.cumsum(~correct[np.argsort(-certainty)]) / np.arange(1, 301)
        assert metrics[f"aurc_{name}"] == pytest.approx(risk.mean())
        assert metrics[f"e_aurc_{name}"] == pytest.approx(risk.mean() - perfect.mean())
        for percent, queries in ((50, 150), (80, 240), (90, 270), (95, 285)):
            assert metrics[f"accuracy_at_{percent}_coverage_{name}"] == pytest.approx(1 - risk[queries - 1])


def test_perfect_and_inverted_uncertainty() -> None:
    perfect = uncertainty_metrics(X, (~CORRECT).astype(float), Y)
    assert (perfect["r_auroc"], perfect["e_aurc"]) == (1.0, 0.0)
    assert perfect["accuracy_at_50_coverage"] == 1.0
    inverted = uncertainty_metrics(X, CORRECT.astype(float), Y)
    assert inverted["r_auroc"] == 0.0
    errors = np.sort(~CORRECT)[::-1]
    assert inverted["aurc"] == pytest.approx(np.mean(np.cumsum(errors) / np.arange(1, 11)))
    assert inverted["e_aurc"] > 0


@pytest.mark.parametrize("spread", [0.0, 1e-7])
def test_constant_uncertainty_is_said_to_be_constant(spread: float) -> None:
    """Also up to the rounding that an L2-normalised uncertainty embedding leaves in its norm."""
    metrics = uncertainty_metrics(X, 1 + spread * np.arange(10), Y)
    assert metrics["uncertainty_is_constant"] is True
    assert np.isnan([metrics["r_auroc"], metrics["aurc"], metrics["accuracy_at_50_coverage"]]).all()
    assert not np.isnan(metrics["auroc_margin"])


def test_tied_uncertainty_is_chance_within_the_tie() -> None:
    tied = np.full(10, 0.5)
    tied[0] = 0.4
    assert CORRECT[0]
    metrics = uncertainty_metrics(X, tied, Y)
    wrong = np.mean(~CORRECT)
    assert metrics["r_auroc"] == pytest.approx(0.5 + 0.5 / CORRECT.sum())
    rest = (~CORRECT).sum() / 9
    assert metrics["aurc"] == pytest.approx(np.mean([rest * n / (n + 1) for n in range(10)]))
    assert metrics["error_rate"] == wrong


def test_all_right_or_all_wrong_has_no_auroc() -> None:
    x = np.eye(2)[[0, 0, 1, 1]] + 0.01 * np.arange(4)[:, None]
    right = uncertainty_metrics(x, [1, 2, 3, 4], [0, 0, 1, 1])
    assert np.isnan(right["r_auroc"]) and (right["aurc"], right["error_rate"]) == (0.0, 0.0)
    wrong = uncertainty_metrics(x, [1, 2, 3, 4], [0, 1, 0, 1])
    assert np.isnan(wrong["r_auroc"]) and (wrong["aurc"], wrong["e_aurc"]) == (1.0, 0.0)


def test_lone_queries_are_left_out_and_groups_are_heeded() -> None:
    rng = np.random.default_rng(1)
    y, groups, uncertainty = rng.integers(0, 25, 60), rng.integers(0, 2, 60), rng.random(60)
    x = rng.random((25, 3))[y] + 0.2 * rng.random((60, 3))
    ranking = rank(x, y, groups)
    kept = ranking.relevant > 0
    assert 0 < kept.sum() < 60
    metrics = uncertainty_metrics(x, torch.from_numpy(uncertainty), y, groups)
    assert metrics["r_auroc"] == pytest.approx(roc_auc_score(ranking.first_hit[kept] == 1, -uncertainty[kept]))
    assert metrics["error_rate"] == pytest.approx(1 - retrieval_metrics(x, y, groups=groups)["recall_at_1"])


def test_ood_is_found_by_what_knows_it() -> None:
    rng = np.random.default_rng(2)
    inside = np.r_[rng.normal([5, 0, 0], 0.1, (20, 3)), rng.normal([0, 5, 0], 0.1, (20, 3))]
    outside = rng.normal([0, 0, 1], 0.1, (10, 3))
    labels = ["a"] * 20 + ["b"] * 20
    metrics = ood_metrics(
        inside, np.zeros(40), labels, outside, np.ones(10), norms=np.full(40, 5.0), ood_norms=np.full(10, 1.0)
    )
    assert metrics == {
        "ood_auroc": 1.0,
        "ood_auroc_max_similarity": 1.0,
        "ood_auroc_margin": 1.0,
        "ood_auroc_knn_distance": 1.0,
        "ood_auroc_norm": 1.0,
    }
    assert np.isnan(ood_metrics(inside, np.ones(40), labels, outside, np.ones(10))["ood_auroc"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"uncertainty": [1.0] * 9}, "uncertainty must have one value for each of the 10 items"),
        ({"uncertainty": [1.0] * 9 + [np.nan]}, "uncertainty has NaN or infinite values, first at 9"),
        ({"uncertainty": np.ones((10, 1))}, r"got shape \(10, 1\)"),
        ({"norms": [np.inf] * 10}, "norms has NaN or infinite values, first at 0"),
        ({"labels": np.arange(10)}, "nothing to measure"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        uncertainty_metrics(**({"embeddings": X, "uncertainty": ANGLES, "labels": Y} | arguments))


def test_within_groups_an_uncertainty_that_only_tells_groups_apart_is_worth_nothing() -> None:
    groups = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    ranking = rank(X, Y, groups)
    counted = ranking.counted
    uncertainty = np.random.default_rng(0).random(len(Y))
    expected = [
        roc_auc_score(ranking.correct[own], -uncertainty[own])
        for g in (0, 1)
        if (own := counted & (groups == g)).any()
    ]
    metrics = uncertainty_metrics(X, uncertainty, Y, groups)
    assert metrics["r_auroc_within_groups"] == pytest.approx(np.mean(expected))
    assert uncertainty_metrics(X, groups.astype(float), Y, groups)["r_auroc_within_groups"] == 0.5
    assert "r_auroc_within_groups" not in uncertainty_metrics(X, uncertainty, Y)
