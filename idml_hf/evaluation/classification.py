"""How good a classifier is, and whether it knows when it is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from idml_hf.search.arrays import as_array, as_count

from .arguments import as_labels, as_rows, as_scores
from .uncertainty import auroc, is_constant, risk_coverage, tied

_PART = 2**14  # images turned to float64 at a time


def classification_metrics(
    logits: Any, labels: Any, uncertainty: Any = None, num_bins: int = 15
) -> dict[str, float | bool]:
    """Accuracy, calibration, and how well two signals foretell an error.

    Args:
        logits: `(N, C)`.
        labels: `(N,)` classes.
        uncertainty: `(N,)` one number an image, larger is less certain.
        num_bins: Bins of the expected calibration error.

    Returns:
        - `top1`, and `top5` if there are more than five classes: shares of images whose class is the most probable,
          or among the five most probable; of classes that tie, those of smaller index come first;
        - `nll`: mean negative log-likelihood in nats;
        - `ece`: expected calibration error (Guo et al., 2017): mean distance of accuracy and confidence over
          `num_bins` bins of equal width of the largest probability, weighted by the images in them;
        - `aurc`, `e_aurc` and `auroc` of the largest probability, which every classifier has, defined as in
          [`idml_hf.evaluation.uncertainty`]: AURC is the mean over coverages of the error among the most certain
          images, e-AURC its excess over the perfect order, AUROC the chance that a right image ranks
          above a wrong one;
        - given `uncertainty`, the same of it, as `aurc_uncertainty` and so on, and `uncertainty_is_constant`: then
          they are NaN.

    Raises:
        ValueError: for values that are not finite, labels outside 0..C-1, or arrays of different lengths.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
        >>> metrics = classification_metrics(np.log(probabilities), [0, 0, 1, 1], uncertainty=[1, 2, 3, 4])
        >>> metrics["top1"], round(metrics["nll"], 3), round(metrics["ece"], 3), metrics["aurc_uncertainty"]
        (0.75, 0.511, 0.35, 0.0625)
    """
    logits, labels = _check(logits, labels)
    parts = [_read(logits[at : at + _PART], labels[at : at + _PART]) for at in range(0, len(logits), _PART)]
    place, best, own = (np.concatenate(column) for column in zip(*parts, strict=True))
    correct = place == 0
    metrics: dict[str, float | bool] = {"top1": float(correct.mean())}
    if logits.shape[1] > 5:
        metrics["top5"] = float((place < 5).mean())
    metrics["nll"] = float(-own.mean())
    metrics["ece"] = calibration_error(np.exp(best), correct, num_bins)
    metrics |= _selective(tied(best), correct, "")
    if uncertainty is not None:
        values = as_scores("uncertainty", uncertainty, len(labels))
        constant = is_constant(values)
        metrics["uncertainty_is_constant"] = constant
        metrics |= _selective(np.full(len(values), np.nan) if constant else -values, correct, "_uncertainty")
    return metrics


def calibration_error(confidence: Any, correct: Any, num_bins: int = 15) -> float:
    """Expected calibration error.

    Args:
        confidence: `(N,)` in [0, 1].
        correct: `(N,)` booleans.
        num_bins: Number of bins, (0, 1 / num_bins], ..., (1 - 1 / num_bins, 1].

    Example:
        >>> round(calibration_error([0.95, 0.95, 0.55, 0.55], [True, True, True, False], num_bins=10), 3)
        0.05
    """
    correct = as_array(correct, "correct").astype(bool)
    confidence, num_bins = as_scores("confidence", confidence, len(correct)), as_count(num_bins, "num_bins")
    if not len(correct) or confidence.min() < 0 or confidence.max() > 1:
        raise ValueError("confidence must be at least one number, each in [0, 1]")
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _selective(certainty: np.ndarray, correct: np.ndarray, suffix: str) -> dict[str, float]:
    area = excess = auc = float("nan")
    if not np.isnan(certainty).any():
        area, auc = float(risk_coverage(certainty, correct)[1].mean()), auroc(certainty, correct)
        excess = area - float(risk_coverage(correct, correct)[1].mean())
    return {f"aurc{suffix}": area, f"e_aurc{suffix}": excess, f"auroc{suffix}": auc}


def _read(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The place of each image's class, from 0, and the log-probabilities of the best class and of its own."""
    logits = logits.astype(np.float64)
    own = logits[np.arange(len(labels)), labels]
    # ties go to the smaller index
    better = (logits > own[:, None]) | ((logits == own[:, None]) & (np.arange(logits.shape[1]) < labels[:, None]))
    total = logsumexp(logits, axis=1)
    return better.sum(axis=1), np.minimum(logits.max(axis=1) - total, 0.0), own - total


def _check(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    logits = as_rows("logits", logits).cpu()
    logits = (logits if logits.dtype == torch.float64 else logits.float()).numpy()
    labels = as_labels("labels", labels, len(logits))
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must be integers in 0..{logits.shape[1] - 1}, the classes of the logits")
    return logits, labels.astype(np.int64)


__all__ = ["calibration_error", "classification_metrics"]
