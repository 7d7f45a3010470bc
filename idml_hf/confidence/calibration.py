"""The probability that the first match is right, learnt from labelled queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .features import SIGNALS
from .labelled_queries import JudgedQueries
from .risk_control import RiskControl
from .verdict import Verdict

DELTA = 0.05
_FIT_SHARE = 1 / 3  # of the classes, to fit the few weights; the promise is tested on the others


@dataclass(frozen=True)
class Calibration:
    """A logistic model of the signals, and the tests of what it promises. All of it is plain numbers.

    Args:
        signals: names of its inputs, see [`~idml_hf.confidence.features.match_signals`].
        mean, scale: of each signal.
        weights: of each standardised signal.
        bias: of the model.
        risk: tests that give the threshold for a promised error rate.
        error_rate: promise kept where a search names none.
        metric: ranking it was learnt for.
        auroc: of the confidence on the tested queries, against whether the first match is right.
        accuracy: share of the tested queries whose first match is right.
        queries: number of queries it was learnt from and tested on.
        lone_queries: queries left out since nothing of their class was there to find.
    """

    signals: Sequence[str]
    mean: Sequence[float]
    scale: Sequence[float]
    weights: Sequence[float]
    bias: float
    risk: RiskControl
    error_rate: float
    metric: str
    auroc: float
    accuracy: float
    queries: int
    lone_queries: int

    def confidence(self, signals: np.ndarray) -> np.ndarray:
        """Probability that the first match is right, (Q,), from the `SIGNALS` (Q, len(SIGNALS))."""
        columns = signals[:, [SIGNALS.index(name) for name in self.signals]]
        z = (columns - np.asarray(self.mean)) / np.asarray(self.scale)
        probability = 1 / (1 + np.exp(-(z @ np.asarray(self.weights) + self.bias)))
        return np.where(_copies(signals), 1.0, probability)

    def predict(self, signals: np.ndarray, error_rate: float | None = None) -> Verdict:
        """The verdict on queries with these `SIGNALS` (Q, len(SIGNALS)); `error_rate` None keeps the usual promise."""
        error_rate = self.error_rate if error_rate is None else error_rate
        # an engine may have found nothing at all
        found = np.isfinite(signals).all(1)
        confidence = np.where(found, self.confidence(np.where(found[:, None], signals, 0)), 0)
        threshold = self.risk.threshold(error_rate)
        # without a promise only queries that are in the gallery themselves are answered
        return Verdict(confidence, 1.0 if threshold is None else threshold, error_rate)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Calibration:
        """The calibration of `to_json()`.

        Raises:
            ValueError: if it needs signals that this version does not know.
        """
        unknown = set(entry["signals"]) - set(SIGNALS)
        if unknown:
            raise ValueError(f"the index was calibrated on signals this version does not know: {sorted(unknown)}")
        return cls(**{**entry, "risk": RiskControl(**entry["risk"])})


def _copies(signals: np.ndarray) -> np.ndarray:
    """Queries that are in the gallery themselves: as like their match as can be, and nothing of another class is.

    A model of queries that are not there says nothing about them.
    """
    similarity, margin = (signals[:, SIGNALS.index(name)] for name in ("similarity", "margin"))
    return (similarity > 1 - 1e-4) & (margin > 1e-3)


def fit_calibration(
    queries: JudgedQueries,
    *,
    error_rate: float = 0.1,
    delta: float = DELTA,
    metric: str = "cosine",
    use: Sequence[str] = SIGNALS,
    seed: int = 0,
) -> Calibration:
    """Learn the confidence on a third of the classes, and test promises on the others.

    Args:
        queries: labelled queries with the signals of their first matches; no class is on both sides.
        error_rate: promise to keep where a search names none, in (0, 1).
        delta: chance that a promise is broken, in (0, 1).
        metric: ranking the signals come from.
        use: signals to use.
        seed: chooses the classes.

    Raises:
        ValueError: if there are too few queries, or their first matches are all right or all wrong.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    classes, correct = queries.classes, queries.correct
    distinct = np.random.default_rng(seed).permutation(np.unique(classes))
    number = round(len(distinct) * _FIT_SHARE)
    fit = np.isin(classes, distinct[:number])
    if number < 1 or min(fit.sum(), (~fit).sum()) < 10:
        raise ValueError(
            f"{len(classes)} labelled queries of {len(distinct)} classes are too few to calibrate: it takes at least "
            "2 classes and tens of queries"
        )
    for part in (fit, ~fit):
        if correct[part].all() or not correct[part].any():
            raise ValueError("the first matches of the validation images are all right or all wrong: nothing to learn")
    columns = queries.signals[:, [SIGNALS.index(name) for name in use]]
    # a query that is in the gallery itself is like no other
    learn = fit & ~_copies(queries.signals)
    mean, scale = columns[learn].mean(0), columns[learn].std(0)
    scale[scale < 1e-9] = 1.0
    model = LogisticRegression(max_iter=1000).fit((columns[learn] - mean) / scale, correct[learn])
    confidence = np.where(_copies(queries.signals), 1.0, model.predict_proba((columns - mean) / scale)[:, 1])
    return Calibration(
        signals=tuple(use),
        mean=mean.tolist(),
        scale=scale.tolist(),
        weights=model.coef_[0].tolist(),
        bias=float(model.intercept_[0]),
        risk=RiskControl.test(confidence[fit], confidence[~fit], correct[~fit], classes[~fit], delta),
        error_rate=error_rate,
        metric=metric,
        auroc=float(roc_auc_score(correct[~fit], confidence[~fit])),
        accuracy=float(correct[~fit].mean()),
        queries=len(classes),
        lone_queries=queries.lone,
    )


__all__ = ["DELTA", "Calibration", "fit_calibration"]
