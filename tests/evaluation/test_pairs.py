from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from idml_hf.evaluation import pair_metrics
from idml_hf.evaluation.pairs import draw_pairs, judge_pairs
from idml_hf.similarity import introspective_distance


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    labels=st.lists(st.integers(0, 5), max_size=40),
    grouped=st.booleans(),
    number=st.integers(0, 60),
    seed=st.integers(0, 100),
)
def test_pairs_are_what_they_are_said_to_be(labels: list[int], grouped: bool, number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = np.unique(np.array(labels, dtype=int), return_inverse=True)[1]
    groups = rng.integers(0, 3, len(classes)) if grouped else None
    left, right, same = draw_pairs(classes, groups, number, rng)
    assert len(left) == len(right) == len(same) <= number and same.sum() * 2 == len(same)
    assert (left != right).all() and np.array_equal(classes[left] == classes[right], same)
    if groups is not None:
        assert (groups[left[same]] != groups[right[same]]).all()
    enough = len(set(labels)) > 1 and any(labels.count(label) > 1 for label in labels)
    if enough and not grouped and number > 1:
        assert len(left) > 0


def embedded(number: int = 400, classes: int = 40) -> tuple[Any, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, number)
    x = rng.standard_normal((classes, 8))[labels] + 0.8 * rng.standard_normal((number, 8))
    norm = np.linalg.norm(x, axis=1)
    u = rng.random((number, 3))
    said = SimpleNamespace(
        semantic=(x / norm[:, None]).astype(np.float32),
        uncertainty_embeds=u.astype(np.float32),
        uncertainty=np.linalg.norm(u, axis=1),
        semantic_norm=norm,
    )
    return said, labels, rng.integers(0, 3, number)


@pytest.mark.parametrize("grouped", [False, True])
def test_equals_the_distance_of_each_pair(grouped: bool) -> None:
    said, labels, groups = embedded()
    metrics = pair_metrics(said, labels, groups if grouped else None, number=2000, tau=2.0)
    s, u = (torch.from_numpy(x).double() for x in (said.semantic, said.uncertainty_embeds))
    distance = introspective_distance(s, u, s, u, tau=2.0).numpy()
    hidden = labels[:, None] == labels
    # all pairs, where 2,000 of them were drawn
    wanted = ~hidden | (groups[:, None] != groups if grouped else ~np.eye(len(labels), dtype=bool))
    same = hidden[wanted]
    weights = np.where(same, 1 / same.sum(), 1 / (~same).sum())
    expected = roc_auc_score(same, -distance[wanted], sample_weight=weights)
    assert metrics["pair_auroc"] == pytest.approx(expected, abs=0.04)
    cosine = roc_auc_score(same, (said.semantic @ said.semantic.T)[wanted], sample_weight=weights)
    assert metrics["pair_auroc_cosine"] == pytest.approx(cosine, abs=0.04)
    assert metrics["num_pairs"] == 2000 and 0 < metrics["pair_ece"] < 0.2 and 0 < metrics["pair_eer"] < 0.5


def test_judgement_equals_loops() -> None:
    rng = np.random.default_rng(1)
    same, halves = rng.random(300) < 0.5, rng.integers(0, 2, 300)
    score = np.round(same + 1.5 * rng.standard_normal(300), 1)
    judged = judge_pairs(score, same, halves)
    wins = [(a > b) + 0.5 * (a == b) for a in score[same] for b in score[~same]]
    assert judged["pair_auroc"] == pytest.approx(np.mean(wins))
    gaps = []
    for threshold in score:
        accepted, missed = np.mean(score[~same] >= threshold), np.mean(score[same] < threshold)
        gaps.append((abs(accepted - missed), accepted, missed))
    _, accepted, missed = min(gaps)
    assert min(accepted, missed) - 0.01 <= judged["pair_eer"] <= max(accepted, missed) + 0.01
    squares, probability = [], np.empty(300)
    for half in (0, 1):
        other, own = halves != half, halves == half
        curve = LogisticRegression().fit((score[other, None] - score[other].mean()) / score[other].std(), same[other])
        probability[own] = curve.predict_proba((score[own, None] - score[other].mean()) / score[other].std())[:, 1]
    squares = [(p - y) ** 2 for p, y in zip(probability, same, strict=True)]
    assert judged["pair_brier"] == pytest.approx(np.mean(squares))


def test_scale_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    same, halves = rng.random(200) < 0.5, rng.integers(0, 2, 200)
    score = same + rng.standard_normal(200)
    expected = judge_pairs(score, same, halves)
    assert judge_pairs(1e-9 * score - 4, same, halves) == pytest.approx(expected, abs=1e-5)


def test_a_score_that_says_nothing_is_chance() -> None:
    same = np.arange(100) % 2 == 0
    judged = judge_pairs(np.zeros(100), same, np.arange(100) // 2 % 2)
    assert (judged["pair_auroc"], judged["pair_eer"]) == (0.5, 0.5)
    assert judged["pair_brier"] == pytest.approx(0.25) and judged["pair_ece"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("labels", [np.zeros(10, int), np.arange(10), np.r_[0, 0, 1, 1, 1, 1, 1, 1, 1, 1]])
def test_without_such_pairs_there_is_nothing_to_measure(labels: np.ndarray) -> None:
    said, *_ = embedded(10)
    assert pair_metrics(said, labels) == {}
