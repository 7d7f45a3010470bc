"""Classification metrics against scikit-learn and against definitions written out as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.metrics import log_loss, roc_auc_score, top_k_accuracy_score

from idml_hf.evaluation.classification import calibration_error, classification_metrics


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 500)
    logits = rng.normal(size=(500, 8)) + 1.5 * np.eye(8)[labels]
    return logits, labels, rng.random(500)


def test_accuracy_and_likelihood_are_those_of_scikit_learn(example):
    logits, labels, _ = example
    metrics = classification_metrics(logits, labels)
    assert metrics["top1"] == pytest.approx(top_k_accuracy_score(labels, logits, k=1))
    assert metrics["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5))
    assert metrics["nll"] == pytest.approx(log_loss(labels, softmax(logits, axis=1)))
    assert "top5" not in classification_metrics(logits[:, :5], labels % 5)


def test_calibration_error_is_its_definition(example):
    logits, labels, _ = example
    probabilities = softmax(logits, axis=1)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert classification_metrics(logits, labels)["ece"] == pytest.approx(expected)
    assert calibration_error([1.0, 0.0], [True, False]) == 0.0
    with pytest.raises(ValueError, match="num_bins must be at least 1"):
        calibration_error([0.5], [True], num_bins=0)


def area_by_orders(certainty, correct):
    """AURC as a mean over all orders of the images that tie."""
    orders = [p for p in itertools.permutations(range(len(certainty))) if (np.diff(certainty[list(p)]) <= 0).all()]
    errors = ~correct
    return np.mean([[errors[list(order[:n])].mean() for n in range(1, len(order) + 1)] for order in orders])


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.int64, 5, elements=st.integers(0, 3)),
    arrays(np.bool_, 5),
    arrays(np.int64, 5, elements=st.integers(0, 3)),
)
def test_risk_coverage_of_both_signals(doubt, correct, confidence):
    # two classes; confidence levels that tie often
    logits = np.where(correct[:, None], [0.0, 1.0], [1.0, 0.0]) * (1 + confidence[:, None])
    metrics = classification_metrics(logits, np.ones(5, dtype=int), doubt.astype(float))
    assert metrics["top1"] == pytest.approx(correct.mean())
    assert metrics["aurc"] == pytest.approx(area_by_orders(confidence.astype(float), correct))
    if np.ptp(doubt):
        assert metrics["aurc_uncertainty"] == pytest.approx(area_by_orders(-doubt.astype(float), correct))
        assert metrics["e_aurc_uncertainty"] >= -1e-12
    else:
        assert metrics["uncertainty_is_constant"] and np.isnan(metrics["aurc_uncertainty"])
    if correct.any() and not correct.all():
        assert metrics["auroc"] == pytest.approx(roc_auc_score(correct, confidence))
    else:
        assert np.isnan(metrics["auroc"])


def test_ties_of_logits_go_to_the_smaller_class():
    assert classification_metrics([[1.0, 1.0]], [0])["top1"] == 1.0
    assert classification_metrics([[1.0, 1.0]], [1])["top1"] == 0.0
    assert classification_metrics(np.zeros((1, 6)), [5])["top5"] == 0.0


def test_logits_may_be_torch_tensors_and_large(example):
    import torch

    logits, labels, uncertainty = example
    a = classification_metrics(logits, labels, uncertainty)
    b = classification_metrics(torch.tensor(logits), torch.tensor(labels), torch.tensor(uncertainty))
    assert a == b
    assert np.isfinite(classification_metrics(1e4 * logits, labels)["nll"])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), [0], "labels must have one value for each of the 2 items"),
        (np.zeros((0, 3)), [], "logits must be a non-empty matrix"),
        (np.zeros((2, 3)), [0, 3], r"integers in 0\.\.2"),
        (np.zeros((2, 3)), [0, -1], r"integers in 0\.\.2"),
        (np.zeros((2, 3)), [0.0, 1.0], "integers"),
        ([[0.0, 1.0], [np.nan, 0.0]], [0, 1], "logits has NaN or infinite values, first in row 1"),
    ],
)
def test_what_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(logits, labels)
