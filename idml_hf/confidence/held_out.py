"""What a calibrated confidence is worth on classes that did not calibrate it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .calibration import PROMISES, Calibration
from .labelled_queries import LabelledQueries, judge_among_themselves


@dataclass(frozen=True, eq=False)
class HeldOutConfidence:
    """The confidence of each query, from a calibration by the other half of the classes.

    Args:
        metrics: `confidence_auroc`, and for each promise of e % `answered_at_e`, the share of the queries answered,
            and `error_at_e`, the share of wrong ones among these answers (None if none is given).
        confidence: float64 (M,), of the queries that have something to find, in their order.
    """

    metrics: dict[str, Any]
    confidence: np.ndarray


def held_out_confidence(queries: LabelledQueries, seed: int = 0) -> HeldOutConfidence | None:
    """Calibrate by one half of the classes and judge the other half, in turn.

    All images are in the gallery, so no query's class is absent.

    Args:
        queries: labelled images; each is searched for among the others.
        seed: deals the classes.

    Returns:
        None where a half is too small to calibrate by, or all or none of its first matches are right.

    Example:
        >>> random = np.random.default_rng(0)
        >>> centres = random.normal(size=(60, 8))
        >>> labels = np.repeat(np.arange(60), 8)
        >>> x = centres[labels] + random.normal(size=(480, 8))
        >>> held_out = held_out_confidence(
        ...     LabelledQueries(
        ...         (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32),
        ...         np.ones((480, 1), np.float32),
        ...         labels,
        ...     )
        ... )
        >>> held_out.metrics["confidence_auroc"] > 0.7, len(held_out.confidence)
        (True, 480)
    """
    from sklearn.metrics import roc_auc_score

    outcomes = judge_among_themselves(queries, most=None)
    present = outcomes.select(outcomes.present)
    halves = np.array_split(np.random.default_rng(seed).permutation(np.unique(queries.labels)), 2)
    confidence = np.zeros(len(present.correct))
    answered = {promise: np.zeros(len(confidence), dtype=bool) for promise in PROMISES}
    for half in halves:
        judged = np.isin(present.classes, half)
        try:
            calibration = Calibration.fit(outcomes.select(~np.isin(outcomes.classes, half)), absent=0.0, seed=seed)
        except ValueError:
            return None
        values = present.signals(calibration.signals)[judged]
        possible = ~calibration.outside(values) & (present.rivals[judged] < 0)
        confidence[judged] = np.where(present.rivals[judged] >= 0, 0.0, calibration.confidence(values))
        for promise, given in answered.items():
            given[judged] = possible & (confidence[judged] >= calibration.bar(promise))
    metrics: dict[str, Any] = {"confidence_auroc": float(roc_auc_score(present.correct, confidence))}
    for promise, given in answered.items():
        percent = round(100 * promise)
        metrics[f"answered_at_{percent}"] = float(given.mean())
        metrics[f"error_at_{percent}"] = float(np.mean(~present.correct[given])) if given.any() else None
    return HeldOutConfidence(metrics, confidence)


__all__ = ["HeldOutConfidence", "held_out_confidence"]
