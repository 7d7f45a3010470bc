from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from brute_force import retrieval as brute_force
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from idml_hf.evaluation import rank, retrieval_metrics

BEYOND_FLOAT32 = 2**24


def unit_rows(seed: int, rows: int, dimensions: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@st.composite
def integer_problems(draw: st.DrawFn) -> dict[str, Any]:
    """Few small integers in few dimensions: duplicates and ties everywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dimensions, classes = draw(st.integers(1, 4)), draw(st.integers(1, 6))

    def items(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = rng.integers(-2, 3, (number, dimensions))
        x[(x == 0).all(1)] = 1
        return x, BEYOND_FLOAT32 + rng.integers(0, classes, number), rng.integers(0, 3, number)

    number = draw(st.integers(2, 40))
    problem: dict[str, Any] = dict(zip(("embeddings", "labels", "groups"), items(number), strict=True))
    if draw(st.booleans()):
        names = ("gallery", "gallery_labels", "gallery_groups")
        problem |= dict(zip(names, items(draw(st.integers(1, 40))), strict=True))
    if draw(st.booleans()):
        problem = {key: value for key, value in problem.items() if not key.endswith("groups")}
    metric, average = draw(st.sampled_from(["cosine", "euclidean"])), draw(st.sampled_from(["queries", "classes"]))
    return problem | {"metric": metric, "average": average, "map_ks": draw(st.sampled_from([(), (1, 5), (100,)]))}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problem=integer_problems(), dtype=st.sampled_from([np.int64, np.float32, np.float64, np.float16]))
def test_equals_brute_force_on_ties(problem: dict[str, Any], dtype: Any) -> None:
    expected = brute_force(ks=(1, 3, 1000), **problem)
    for key in problem.keys() & {"embeddings", "gallery"}:
        problem[key] = problem[key].astype(dtype)
    for block_size in (None, 7):
        if expected is None:
            with pytest.raises(ValueError, match="nothing to measure"):
                retrieval_metrics(ks=(1, 3, 1000), block_size=block_size, **problem)
        else:
            assert retrieval_metrics(ks=(1, 3, 1000), block_size=block_size, **problem) == pytest.approx(
                expected, abs=1e-12
            )


@pytest.mark.parametrize("seed", range(4))
def test_equals_pytorch_metric_learning(seed: int) -> None:
    """On data where it is right: no lone labels beyond float32, no ties."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, 30)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = unit_rows(seed, len(labels), 16) + 0.3 * unit_rows(99, len(sizes), 16)[labels]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu"))
    theirs = calculator.get_accuracy(x, labels)
    ours = retrieval_metrics(x, labels)
    assert [ours["recall_at_1"], ours["r_precision"], ours["map_at_r"]] == pytest.approx(
        [theirs[name] for name in names], abs=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 10, 60])
def test_map_at_k_per_class_and_macro_averages_equal_pytorch_metric_learning(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, 20)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = unit_rows(seed, len(labels), 16) + 0.4 * unit_rows(99, len(sizes), 16)[labels]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    names = {"precision_at_1": "recall_at_1", "mean_average_precision": f"map_at_{k}"}
    whole = {"r_precision": "r_precision", "mean_average_precision_at_r": "map_at_r"}
    ranking = rank(x, labels, map_ks=(k,))
    columns = ranking.by_class(ks=(1,))
    for theirs, depth in ((names, k), (whole, "max_bin_count")):
        options: dict[str, Any] = {"include": tuple(theirs), "k": depth, "device": torch.device("cpu")}
        plain = AccuracyCalculator(**options).get_accuracy(x, labels)
        macro = AccuracyCalculator(avg_of_avgs=True, **options).get_accuracy(x, labels)
        each = AccuracyCalculator(return_per_class=True, **options).get_accuracy(x, labels)
        for name, key in theirs.items():
            assert ranking.metrics(ks=(1,))[key] == pytest.approx(plain[name], abs=1e-6)
            assert ranking.metrics(ks=(1,), average="classes")[key] == pytest.approx(macro[name], abs=1e-6)
            assert columns[key] == pytest.approx(each[name], abs=1e-6)
    present = [label for label in np.unique(labels) if (labels == label).sum() > 1]
    assert columns["label"].tolist() == present
    assert columns["num_queries"].tolist() == [(labels == label).sum() for label in present]
    assert retrieval_metrics(x, labels, map_ks=(k,), average="classes") == ranking.metrics(average="classes")


def test_labels_that_float32_cannot_tell_apart() -> None:
    x = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])
    apart = BEYOND_FLOAT32 + np.array([0, 1, 0, 1])
    assert retrieval_metrics(x, apart)["recall_at_1"] == 0.0
    assert retrieval_metrics(x, torch.from_numpy(apart))["recall_at_1"] == 0.0
    assert retrieval_metrics(x, apart + 2**60)["recall_at_1"] == 0.0


def test_labels_of_other_types() -> None:
    x = unit_rows(0, 30, 4)
    numbers = np.random.default_rng(0).integers(0, 5, 30)
    expected = retrieval_metrics(x, numbers)
    assert retrieval_metrics(x, [f"class {n}" for n in numbers]) == expected
    assert retrieval_metrics(torch.from_numpy(x), numbers.tolist()) == expected
    assert retrieval_metrics(x, numbers.astype(np.uint64) + np.uint64(2**63)) == expected


def test_signed_and_unsigned_labels_stay_apart() -> None:
    # as float64, where NumPy would join them, these two are one number
    with pytest.raises(ValueError, match="nothing to measure"):
        retrieval_metrics(
            [[1.0]], np.array([2**60], np.int64), gallery=[[1.0]], gallery_labels=np.array([2**60 + 1], np.uint64)
        )


def test_duplicates_of_another_class_are_not_the_query_itself() -> None:
    """Dropping the first column instead of the query scores 1.0 here."""
    x = np.repeat(unit_rows(0, 20, 8), 2, axis=0)
    labels = np.tile([0, 1], 20)
    nearest = rank(x, labels).neighbours[:, 0]
    assert np.array_equal(nearest, np.arange(40) ^ 1)
    assert retrieval_metrics(x, labels)["recall_at_1"] == 0.0


def test_rank_of_first_hit_is_exact_far_beyond_the_candidates() -> None:
    """The only other item of each class is the farthest of 300."""
    angles = np.linspace(0, np.pi / 2, 300)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.arange(300)
    labels[-1] = 0
    ranking = rank(x, labels)
    assert ranking.counted.nonzero()[0].tolist() == [0, 299]
    assert ranking.first_hit[[0, 299]].tolist() == [299, 299]
    metrics = ranking.metrics(ks=(298, 299, 10_000))
    assert (metrics["recall_at_298"], metrics["recall_at_299"], metrics["recall_at_10000"]) == (0.0, 1.0, 1.0)
    assert metrics["mrr"] == pytest.approx(1 / 299)
    assert metrics["num_lone_queries"] == 298


def test_rank_of_first_hit_among_more_near_ties_than_are_scored_one_by_one() -> None:
    x = np.ones((700, 3), dtype=np.float32)
    labels = np.arange(700)
    labels[600] = 0
    assert rank(x, labels).first_hit[[0, 600]].tolist() == [600, 1]


def test_margin_is_against_another_class_than_that_of_the_nearest() -> None:
    x = [[1.0, 0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]]
    ranking = rank(x, [0, 0, 1, 1])
    # item 2: nearest is item 1 (0.96, class 0), best of class 1 is item 3 (0.8)
    assert ranking.margin == pytest.approx([0.8 - 0.6, 0.96 - 0.8, 0.96 - 0.8, 0.8 - 0.6])
    assert ranking.scores[:, 0] == pytest.approx([0.8, 0.96, 0.96, 0.8])
    assert np.isinf(rank(x, [0, 0, 0, 0]).margin).all()


def test_margin_looks_past_a_large_class() -> None:
    angles = np.linspace(0, 1, 50)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.r_[np.zeros(48, int), 1, 1]
    assert rank(x, labels).margin[0] == pytest.approx(np.cos(angles[1]) - np.cos(angles[48]))


def test_groups_hide_the_querys_class_and_group_only() -> None:
    x = [[1.0, 0], [1, 0.01], [1, 0.2], [1, 0.1]]
    labels, groups = [0, 0, 0, 1], ["a", "a", "b", "a"]
    assert rank(x, labels, keep=1).neighbours[0, 0] == 1
    grouped = rank(x, labels, groups, keep=3)
    assert grouped.neighbours[0].tolist() == [3, 2, -1]
    assert rank(x, labels, groups, keep=9).neighbours[0].tolist() == [3, 2] + [-1] * 7
    assert grouped.relevant.tolist() == [1, 1, 2, 0]


def test_introspective_ranking_without_uncertainty_is_the_cosine_ranking() -> None:
    x, labels = unit_rows(3, 60, 6), np.arange(60) % 7
    plain = rank(x, labels, keep=59)
    introspective = rank(x, labels, keep=59, metric="introspective", uncertainty=np.zeros((60, 4)))
    assert np.array_equal(plain.neighbours, introspective.neighbours)
    assert plain.metrics() == introspective.metrics()


def test_one_class_is_always_right() -> None:
    metrics = retrieval_metrics(unit_rows(0, 5, 3), np.zeros(5, int))
    assert (metrics["recall_at_1"], metrics["map_at_r"], metrics["mrr"]) == (1.0, 1.0, 1.0)


X, Y = np.eye(4), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": np.where(X == 1, np.nan, X)}, "embeddings has NaN or infinite values, first in row 0"),
        ({"embeddings": np.diag([1, 1, np.inf, 1])}, "infinite values, first in row 2"),
        ({"embeddings": np.diag([1, 1, 0, 1])}, "no direction in row 2"),
        ({"embeddings": X[:1], "labels": Y[:1]}, "at least two"),
        ({"embeddings": X[0]}, "must be a non-empty matrix"),
        ({"embeddings": X[:0], "labels": Y[:0]}, "must be a non-empty matrix"),
        ({"labels": Y[:3]}, "labels must have one value for each of the 4 items"),
        ({"groups": Y[:3]}, "groups must have one value for each of the 4 items"),
        ({"labels": Y[:, None]}, r"got shape \(4, 1\)"),
        ({"labels": [0, 0, np.nan, 1]}, "labels has NaN"),
        ({"labels": [0, 0, None, "a"]}, "labels mixes types"),
        ({"labels": np.arange(4)}, "nothing to measure"),
        ({"groups": Y}, "nothing to measure"),
        ({"ks": (0,)}, "ks must be whole numbers"),
        ({"ks": (1.5,)}, "ks must be whole numbers"),
        ({"ks": 5}, "ks must be whole numbers"),
        ({"map_ks": (0,)}, "map_ks must be whole numbers"),
        ({"average": "macro"}, "Unknown average 'macro'"),
        ({"metric": "manhattan"}, "Unknown metric 'manhattan'"),
        ({"metric": "introspective"}, "needs the uncertainty embeddings"),
        (
            {"metric": "introspective", "uncertainty": X[:2]},
            "uncertainty must have one row for each of the 4 items, got 2",
        ),
        ({"gallery": X}, "needs gallery_labels"),
        ({"gallery_labels": Y}, "need a gallery"),
        ({"gallery": X, "gallery_labels": Y, "groups": Y}, "needed together"),
        ({"gallery": X[:, :3], "gallery_labels": Y}, "4 dimensions, the gallery 3"),
        ({"gallery": X, "gallery_labels": ["a", "b", "c", "d"]}, "types that do not compare"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(**({"embeddings": X, "labels": Y} | arguments))
