"""What comes in may have any type, layout, size and order; what cannot be used is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import SCORES
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from idml_hf.evaluation import (
    RetrievalEvaluator,
    clustering_metrics,
    ood_metrics,
    rank,
    retrieval_metrics,
    risk_coverage,
    uncertainty_metrics,
)
from idml_hf.evaluation.classification import calibration_error, classification_metrics
from idml_hf.evaluation.uncertainty import free_signals, tied

FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": np.ndarray.tolist,
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "longdouble": lambda x: x.astype(np.longdouble),
    "int8": lambda x: x.astype(np.int8),
    "int64": lambda x: x.astype(np.int64),
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "negative strides": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "columns first": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "read only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "tensor": lambda x: torch.from_numpy(x.copy()),
    "bfloat16": lambda x: torch.from_numpy(x.copy()).bfloat16(),
    "half": lambda x: torch.from_numpy(x.copy()).half(),
    "integer tensor": lambda x: torch.from_numpy(x.copy()).int(),
    "part of a graph": lambda x: torch.from_numpy(x.copy()).requires_grad_() * 1.0,
    "list of tensors": lambda x: [torch.tensor(row, requires_grad=True) for row in x],
}
form = st.sampled_from(sorted(FORMS))


def problem(seed: int, number: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (number, 3)).astype(np.float64)
    x[(x == 0).all(1)] = 1
    return x, rng.integers(0, 5, number).astype(np.float64), rng.integers(0, 9, number).astype(np.float64)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    forms=st.tuples(form, form, form),
    metric=st.sampled_from(["cosine", "euclidean", "introspective"]),
    seed=st.integers(0, 50),
)
def test_the_form_of_the_arguments_does_not_matter(forms: tuple[str, str, str], metric: str, seed: int) -> None:
    x, y, u = problem(seed)
    extra = {"uncertainty": np.abs(x)} if metric == "introspective" else {}
    formed = {key: FORMS[forms[0]](value) for key, value in extra.items()}
    expected = retrieval_metrics(x, y, (1, 3), metric=metric, **extra)
    values, labels = FORMS[forms[0]](x), FORMS[forms[1]](y)
    assert retrieval_metrics(values, labels, (1, 3), metric=metric, **formed) == expected
    if metric != "introspective":
        expected = uncertainty_metrics(x, u, y, norms=u, metric=metric)
        uncertainty = FORMS[forms[2]](u)
        result = uncertainty_metrics(values, uncertainty, labels, norms=uncertainty, metric=metric)
        np.testing.assert_equal(result, expected)
        np.testing.assert_equal(
            ood_metrics(values, uncertainty, labels, values, uncertainty), ood_metrics(x, u, y, x, u)
        )


@pytest.mark.parametrize("name", sorted(FORMS))
def test_clustering_and_classification_take_every_form(name: str) -> None:
    x, y, u = problem(1)
    clusters = clustering_metrics(x, y, backend="sklearn")
    assert clustering_metrics(FORMS[name](x), FORMS[name](y), backend="sklearn") == clusters
    labels = np.arange(24) % 3
    whole = name not in ("float16", "float32", "longdouble", "bfloat16", "half", "part of a graph", "list of tensors")
    formed = FORMS[name](labels if whole else labels.astype(np.float64))
    expected = classification_metrics(x, labels, u)
    result = classification_metrics(FORMS[name](x), formed if whole else labels, FORMS[name](u))
    assert result == pytest.approx(expected, abs=1e-6, nan_ok=True)
    if not whole:
        with pytest.raises(ValueError, match="labels must be integers"):
            classification_metrics(x, formed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    power=st.integers(-300, 300),
    dtype=st.sampled_from([np.float32, np.float64]),
    metric=st.sampled_from(["cosine", "introspective"]),
    each=st.booleans(),
    seed=st.integers(0, 30),
)
def test_only_the_direction_counts(power: int, dtype: Any, metric: str, each: bool, seed: int) -> None:
    if dtype == np.float32:
        power //= 9  # within its range
    x, y, _ = problem(seed)
    scale = 10.0 ** (np.random.default_rng(seed).uniform(-1, 1, (24, 1)) * power) if each else 10.0**power
    extra = {"metric": metric} | ({"uncertainty": np.abs(x)} if metric == "introspective" else {})
    scaled = (x * scale).astype(dtype)
    # scaling rounds, and with it ties may part: what is compared is the same up to a power of two
    exponents = 2.0 ** np.round(np.log2(np.broadcast_to(scale, (24, 1))))
    expected = retrieval_metrics(x.astype(dtype), y, **extra)
    assert retrieval_metrics((x * exponents).astype(dtype), y, **extra) == expected
    assert 0 <= retrieval_metrics(scaled, y, **extra)["recall_at_1"] <= 1
    if metric == "cosine":
        plain = clustering_metrics(x, y, backend="sklearn")
        assert clustering_metrics((x * exponents).astype(dtype), y, backend="sklearn") == pytest.approx(plain)


def test_named_sizes_give_named_results() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 6
    x = rng.standard_normal((6, 8))[y] + 0.3 * rng.standard_normal((60, 8))
    u = rng.random((60, 2))
    plain, clusters = retrieval_metrics(x, y), clustering_metrics(x, y, backend="sklearn")
    introspective = retrieval_metrics(x, y, metric="introspective", uncertainty=u)
    for scale in (1e-13, 1e30, 1e-200, 1e200):
        assert retrieval_metrics(scale * x, y) == pytest.approx(plain)
        assert retrieval_metrics(scale * x, y, metric="introspective", uncertainty=u) == pytest.approx(introspective)
        assert clustering_metrics(scale * x, y, backend="sklearn")["nmi"] == pytest.approx(clusters["nmi"])
    assert clusters["nmi"] > 0.8


def test_equal_similarities_are_equal_signals() -> None:
    x, y = [[-1, -1], [1, -1], [-1, 0], [1, 0], [1, -1]], [0, 1, 0, 0, 0]
    assert uncertainty_metrics(x, [1, 2, 3, 4, 5], y)["auroc_max_similarity"] == 0.25


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), metric=st.sampled_from(["cosine", "euclidean"]), dimensions=st.integers(1, 4))
def test_ties_between_queries_are_those_of_exact_arithmetic(seed: int, metric: str, dimensions: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-2, 3, (20, dimensions)), rng.integers(0, 4, 20)
    x[(x == 0).all(1)] = 1
    ranking = rank(x, y, metric=metric)
    best = [max(SCORES[metric](x[i], x[j]) for j in range(20) if j != i) for i in range(20)]
    order = {value: place for place, value in enumerate(sorted(set(best)))}
    places = np.array([order[value] for value in best])
    found = free_signals(ranking)["max_similarity"]
    assert np.array_equal(np.unique(found, return_inverse=True)[1], places)
    counted, correct = ranking.counted, ranking.correct
    if len(set(correct[counted].tolist())) == 2:
        metrics = uncertainty_metrics(x, np.arange(20), y, metric=metric)
        expected = roc_auc_score(correct[counted], places[counted])
        assert metrics["auroc_max_similarity"] == pytest.approx(expected, abs=1e-12)
        area = risk_coverage(places[counted], correct[counted])[1].mean()
        assert metrics["aurc_max_similarity"] == pytest.approx(area, abs=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), metric=st.sampled_from(["cosine", "euclidean", "introspective"]))
def test_a_turned_copy_of_a_collection_has_the_same_signals(seed: int, metric: str) -> None:
    """Rounding differs, since the same numbers are added in another order."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((12, 5)), rng.integers(0, 3, 12)
    turned = (x * rng.choice([-1, 1], 5))[:, rng.permutation(5)]
    extra: dict[str, Any] = {"metric": metric}
    both = np.block([[x, np.zeros_like(x)], [np.zeros_like(x), turned]])
    if metric == "introspective":
        extra["uncertainty"] = np.tile(rng.random((12, 2)), (2, 1))
    signals = free_signals(rank(both, np.r_[y, y + 10], keep=3, **extra))
    for name, certainty in signals.items():
        assert np.array_equal(certainty[:12], certainty[12:]), name


def test_tied_leaves_what_differs_apart() -> None:
    values = np.array([1.0, 1 + 1e-9, -np.inf, np.inf, np.inf, 1 + 1e-16, -np.inf, 0.0, 1e-10])
    assert np.unique(tied(values), return_inverse=True)[1].tolist() == [3, 4, 0, 5, 5, 3, 0, 1, 2]
    assert tied(np.array([])).tolist() == [] and tied(np.array([5.0])).tolist() == [5.0]
    assert tied(1e-30 * np.array([1.0, 2.0])).tolist() == [1e-30, 2e-30]


X, Y, U = np.eye(4)[[0, 0, 1, 1]], np.array([0, 0, 1, 1]), np.arange(4.0)
BAD_ROWS = {
    "NaN": np.where(X == 1, np.nan, X),
    "infinite": np.where(X == 1, np.inf, X),
    "zeros": 0 * X,
    "a vector": X[0],
    "none": X[:0],
    "words": X.astype(str),
    "ragged": [[1.0, 2.0], [3.0]],
    "complex": X.astype(complex),
    "masked": np.ma.masked_equal(X, 1),
    "objects": np.array([[None] * 4] * 4),
    "tensor with NaN": torch.full((4, 4), torch.nan, dtype=torch.bfloat16),
}
BAD_SCORES = {
    "short": U[:3],
    "two columns": np.ones((4, 2)),
    "NaN": [1, 2, 3, np.nan],
    "words": ["a", "b", "c", "d"],
    "masked": np.ma.masked_equal(U, 1),
    "none": [None] * 4,
}
BAD_LABELS = {
    "short": Y[:3],
    "column": Y[:, None],
    "NaN": [0, 0, 1, np.nan],
    "mixed": [0, 0, "a", None],
    "masked": np.ma.masked_equal(Y, 1),
    "ragged": [[0], [0, 1], [1], [1]],
}
BAD_COUNTS = {"zero": 0, "negative": -1, "half": 1.5, "word": "a", "none": None}
BAD_TAUS = {"zero": 0.0, "negative": -1.0, "NaN": np.nan, "infinite": np.inf, "word": "a", "none": None}
INTROSPECTIVE = {"metric": "introspective", "uncertainty": X, "gallery_uncertainty": X}
GALLERY = {"gallery": X, "gallery_labels": Y, "groups": Y, "gallery_groups": 1 - Y}


def retrieval(**changed: Any) -> Any:
    return retrieval_metrics(**({"embeddings": X, "labels": Y} | changed))


def uncertain(**changed: Any) -> Any:
    return uncertainty_metrics(**({"embeddings": X, "labels": Y, "uncertainty": U} | changed))


def clusters(**changed: Any) -> Any:
    return clustering_metrics(**({"embeddings": X, "labels": Y, "backend": "sklearn"} | changed))


def foreign(**changed: Any) -> Any:
    given_ = {"embeddings": X, "labels": Y, "uncertainty": U, "ood_embeddings": X, "ood_uncertainty": U}
    return ood_metrics(**(given_ | changed))


def classifier(**changed: Any) -> Any:
    return classification_metrics(**({"logits": X, "labels": Y} | changed))


def evaluator(**changed: Any) -> Any:
    return RetrievalEvaluator(**changed)


def calibration(**changed: Any) -> Any:
    return calibration_error(**({"confidence": [0.5, 1.0], "correct": [True, False]} | changed))


REFUSALS: list[tuple[Callable[..., Any], str, dict[str, Any], dict[str, Any]]] = [
    (retrieval, "embeddings", BAD_ROWS, {}),
    (retrieval, "labels", BAD_LABELS, {}),
    (retrieval, "groups", BAD_LABELS, {}),
    (retrieval, "gallery", BAD_ROWS, GALLERY),
    (retrieval, "gallery_labels", BAD_LABELS, GALLERY),
    (retrieval, "gallery_groups", BAD_LABELS, GALLERY),
    (retrieval, "uncertainty", {k: v for k, v in BAD_ROWS.items() if k != "zeros"}, INTROSPECTIVE | GALLERY),
    (retrieval, "gallery_uncertainty", {k: v for k, v in BAD_ROWS.items() if k != "zeros"}, INTROSPECTIVE | GALLERY),
    (retrieval, "ks", {"number": 3, "word": "a", **{k: [v] for k, v in BAD_COUNTS.items()}}, {}),
    (retrieval, "map_ks", {"number": 3, "word": "a", **{k: [v] for k, v in BAD_COUNTS.items()}}, {}),
    (retrieval, "metric", {"other": "manhattan"}, {}),
    (retrieval, "average", {"other": "macro"}, {}),
    (retrieval, "tau", BAD_TAUS, {}),
    (retrieval, "block_size", {k: v for k, v in BAD_COUNTS.items() if k != "none"}, {}),
    (retrieval, "device", {"other": "abacus", "number": 1.5}, {}),
    (uncertain, "embeddings", BAD_ROWS, {}),
    (uncertain, "labels", BAD_LABELS, {}),
    (uncertain, "groups", BAD_LABELS, {}),
    (uncertain, "uncertainty", BAD_SCORES, {}),
    (uncertain, "norms", {k: v for k, v in BAD_SCORES.items()}, {}),
    (clusters, "embeddings", BAD_ROWS | {"one": X[:1]}, {}),
    (clusters, "labels", BAD_LABELS, {}),
    (clusters, "backend", {"other": "k-medoids"}, {}),
    (clusters, "iterations", BAD_COUNTS, {}),
    (clusters, "seed", {k: v for k, v in BAD_COUNTS.items() if k != "zero"}, {}),
    (foreign, "embeddings", BAD_ROWS, {}),
    (foreign, "labels", BAD_LABELS, {}),
    (foreign, "uncertainty", BAD_SCORES, {}),
    (foreign, "ood_embeddings", BAD_ROWS | {"narrow": X[:, :2]}, {}),
    (foreign, "ood_uncertainty", BAD_SCORES, {}),
    (foreign, "ood_norms", BAD_SCORES, {"norms": U}),
    (classifier, "logits", {k: v for k, v in BAD_ROWS.items() if k != "zeros"}, {}),
    (classifier, "labels", BAD_LABELS | {"floats": [0.0, 0, 1, 1], "beyond": [0, 1, 2, 9], "negative": -Y}, {}),
    (classifier, "uncertainty", BAD_SCORES, {}),
    (classifier, "num_bins", BAD_COUNTS, {}),
    (calibration, "confidence", {"beyond": [0.5, 1.5], "NaN": [0.5, np.nan], "short": [0.5]}, {}),
    (calibration, "num_bins", BAD_COUNTS, {}),
    (evaluator, "ks", {"number": 3, **{k: [v] for k, v in BAD_COUNTS.items()}}, {}),
    (evaluator, "metric", {"other": "manhattan"}, {}),
    (evaluator, "tau", BAD_TAUS, {}),
    (evaluator, "device", {"other": "abacus"}, {}),
    *(
        (evaluator, name, {k: v for k, v in BAD_COUNTS.items() if k != "zero"}, {})
        for name in ("robustness_images", "ambiguous_images", "foreign_images", "pairs", "ceiling_splits", "seed")
    ),
]
CASES = [
    pytest.param(function, name, value, extra, id=f"{function.__name__}-{name}-{kind}")
    for function, name, values, extra in REFUSALS
    for kind, value in values.items()
]


@pytest.mark.parametrize(("function", "name", "value", "extra"), CASES)
def test_a_refusal_names_the_argument_at_fault(function: Any, name: str, value: Any, extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"(^|\W){name}\W") as refused:
        function(**(extra | {name: value}))
    assert "\n" not in str(refused.value)


def test_what_the_refusals_change_is_accepted_unchanged() -> None:
    """Else they would be refused for another reason."""
    for function, _, _, extra in REFUSALS:
        function(**extra)
