"""The tests of calibrations that the first edition saved, to go on keeping the promises that it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm

from .risk_control import clopper_pearson_upper


@dataclass(frozen=True)
class CountedTests:
    """Counts from which the threshold for any promise follows, with classes as the units of chance.

    Args:
        thresholds: confidence from which on an answer is given, falling.
        answered: queries with at least that confidence.
        wrong: how many of their answers are wrong.
        spread: for each threshold the sums over classes of wrong^2, wrong * answered and answered^2.
        expected_share: share of queries at least as confident, from other data.
        expected_error: error rate among them, from other data.
        number: queries tested.
        delta: chance that a promise is broken.
    """

    thresholds: Sequence[float]
    answered: Sequence[int]
    wrong: Sequence[int]
    spread: Sequence[Sequence[float]]
    expected_share: Sequence[float]
    expected_error: Sequence[float]
    number: int
    delta: float = 0.05

    def threshold(self, error_rate: float) -> float | None:
        """As [`~idml_hf.confidence.risk_control.RiskControl.threshold`]."""
        step = self._last_step(error_rate)
        return None if step is None else float(self.thresholds[step])

    def coverage(self, error_rate: float) -> float:
        """As [`~idml_hf.confidence.risk_control.RiskControl.coverage`]."""
        step = self._last_step(error_rate)
        return 0.0 if step is None else self.answered[step] / self.number

    def hindsight(self, error_rate: float) -> float:
        """As [`~idml_hf.confidence.risk_control.RiskControl.hindsight`]."""
        kept = np.asarray(self.wrong) <= error_rate * np.asarray(self.answered)
        return float((np.asarray(self.answered)[kept] / self.number).max(initial=0.0))

    def missing(self, error_rate: float) -> float | None:
        """0 where a promise can be kept; these counts do not tell what else it would take."""
        return None if self._last_step(error_rate) is None else 0.0

    def _last_step(self, error_rate: float) -> int | None:
        if not 0 < error_rate < 1:
            raise ValueError(f"the accepted error rate must be in (0, 1), got {error_rate}")
        answered, wrong = np.asarray(self.answered), np.asarray(self.wrong)
        wrong2, wrong_answered, answered2 = np.asarray(self.spread, dtype=float).T
        deviation = np.sqrt(wrong2 - 2 * error_rate * wrong_answered + error_rate**2 * answered2)
        passed = clopper_pearson_upper(wrong, answered, self.delta) <= error_rate
        passed &= wrong - error_rate * answered <= -norm.ppf(1 - self.delta) * deviation
        start = self._first_step(error_rate)
        if not passed[start]:
            return None
        failed = np.flatnonzero(~passed[start:])
        return len(passed) - 1 if not len(failed) else start + int(failed[0]) - 1

    def _first_step(self, error_rate: float) -> int:
        answered = np.round(np.asarray(self.expected_share) * self.number).astype(int)
        allowed = binom.ppf(self.delta, answered, error_rate)
        allowed = np.where(binom.cdf(allowed, answered, error_rate) > self.delta, allowed - 1, allowed)
        power = np.round(binom.cdf(allowed, answered, self.expected_error), 6)
        power[answered < 1.25 * np.log(self.delta) / np.log(1 - error_rate)] = -1
        return len(power) - 1 - int(power[::-1].argmax())


__all__ = ["CountedTests"]
