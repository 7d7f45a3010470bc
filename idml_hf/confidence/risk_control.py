"""Which answers to give so that a promised error rate holds.

Learn-then-Test (Angelopoulos et al., 2021): thresholds on the confidence are tested one after the other, from few
answers to many, against "the error rate among the answers is above the promise". Testing stops at the first that
cannot be rejected (fixed-sequence testing), and the one before it is used. A test rejects if the Clopper-Pearson upper
bound of the error rate is at most the promise. The chance that the promise is then broken is at most `delta`, if the
queries to come are drawn as those tested were, independently.

Queries of one class are not independent: some classes are hard as a whole. So that a few lucky classes promise
nothing, a test must also be passed by the classes as units: wrong answers less the promised share of all answers,
summed for each class, are below 0 on average by a one-sided normal test at level `delta`.

The thresholds, their order and where testing starts come from other data than the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import beta, binom, norm

STEPS = 100


@dataclass(frozen=True)
class RiskControl:
    """Outcomes of all tests, from which the threshold for any promise follows.

    Args:
        thresholds: confidence from which on an answer is given, falling.
        answered: queries with at least that confidence.
        wrong: how many of their answers are wrong.
        spread: for each threshold the sums over classes of wrong^2, wrong * answered and answered^2.
        expected_share: share of queries at least as confident, from other data.
        expected_error: error rate among them, from other data.
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

    @classmethod
    def test(
        cls,
        plan_confidence: np.ndarray,
        confidence: np.ndarray,
        correct: np.ndarray,
        classes: np.ndarray | None = None,
        delta: float = 0.05,
    ) -> RiskControl:
        """Count what every test needs.

        Args:
            plan_confidence: (M,), confidences of other queries, which set the thresholds.
            confidence: (N,), confidences of the queries to test on.
            correct: bool (N,), whether their answers are right.
            classes: int (N,), their classes; None: the queries are independent.
            delta: chance that a promise is broken.

        Raises:
            ValueError: if there are no queries, or `delta` is not in (0, 1).
        """
        if not len(plan_confidence) or not len(confidence):
            raise ValueError("there are no queries to test a promise on")
        if not 0 < delta < 1:
            raise ValueError(f"delta must be in (0, 1), got {delta}")
        shares = np.arange(1, STEPS + 1) / STEPS
        falling = np.sort(plan_confidence)[::-1]
        thresholds = falling[np.maximum(np.ceil(shares * len(falling)).astype(int) - 1, 0)]
        thresholds[-1] = 0.0  # answers everything
        planned = falling >= thresholds[:, None]
        answers = confidence >= thresholds[:, None]
        return cls(
            thresholds=thresholds.tolist(),
            answered=answers.sum(1).tolist(),
            wrong=(answers & ~correct).sum(1).tolist(),
            spread=_sums_over_classes(answers, answers & ~correct, classes),
            expected_share=planned.mean(1).tolist(),
            expected_error=((planned * (1 - falling)).sum(1) / planned.sum(1)).tolist(),
            number=len(confidence),
            delta=delta,
        )

    def threshold(self, error_rate: float) -> float | None:
        """Confidence from which on to answer so that at most `error_rate` of the answers are wrong; None for never.

        Raises:
            ValueError: if `error_rate` is not in (0, 1).
        """
        step = self._last_step(error_rate)
        return None if step is None else float(self.thresholds[step])

    def coverage(self, error_rate: float) -> float:
        """Share of the tested queries that are answered under a promise."""
        step = self._last_step(error_rate)
        return 0.0 if step is None else self.answered[step] / self.number

    def _last_step(self, error_rate: float) -> int | None:
        if not 0 < error_rate < 1:
            raise ValueError(f"the accepted error rate must be in (0, 1), got {error_rate}")
        answered, wrong = np.asarray(self.answered), np.asarray(self.wrong)
        passed = clopper_pearson_upper(wrong, answered, self.delta) <= error_rate
        passed &= wrong - error_rate * answered <= -norm.ppf(1 - self.delta) * self._deviation(error_rate)
        start = self._first_step(error_rate)
        if not passed[start]:
            return None
        failed = np.flatnonzero(~passed[start:])
        return len(passed) - 1 if not len(failed) else start + int(failed[0]) - 1

    def _deviation(self, error_rate: float) -> np.ndarray:
        """Standard deviation over classes of the sum of wrong answers less the promised share of all answers."""
        wrong2, wrong_answered, answered2 = np.asarray(self.spread, dtype=float).T
        return np.sqrt(wrong2 - 2 * error_rate * wrong_answered + error_rate**2 * answered2)

    def _first_step(self, error_rate: float) -> int:
        """The test most likely to be passed, by the other data; of equals, the one with the most answers.

        Only tests that should have a quarter more answers than the fewest that can pass, all of them right.
        """
        answered = np.round(np.asarray(self.expected_share) * self.number).astype(int)
        allowed = _allowed_errors(answered, error_rate, self.delta)
        power = np.round(binom.cdf(allowed, answered, self.expected_error), 6)
        power[answered < 1.25 * np.log(self.delta) / np.log(1 - error_rate)] = -1
        return len(power) - 1 - int(power[::-1].argmax())


def clopper_pearson_upper(wrong: np.ndarray, number: np.ndarray, delta: float) -> np.ndarray:
    """Upper confidence bound of a rate at level 1 - `delta`, from `wrong` of `number` independent trials.

    Example:
        >>> clopper_pearson_upper(np.array([0, 2, 59]), np.array([59, 59, 59]), 0.05).round(3).tolist()
        [0.05, 0.103, 1.0]
    """
    wrong, number = np.asarray(wrong), np.asarray(number)
    return np.where(wrong >= number, 1.0, beta.ppf(1 - delta, wrong + 1, np.maximum(number - wrong, 1)))


def _sums_over_classes(answers: np.ndarray, wrong: np.ndarray, classes: np.ndarray | None) -> list[list[float]]:
    """For each row of answers (T, N): sums over classes of wrong^2, wrong * answered, answered^2."""
    if classes is not None:
        number, code = np.unique(classes, return_inverse=True)
        members = csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))), shape=(len(number), len(code)))
        answers, wrong = (np.asarray(members @ rows.T.astype(float)).T for rows in (answers, wrong))
    a, w = answers.astype(float), wrong.astype(float)
    return np.stack([(w * w).sum(1), (w * a).sum(1), (a * a).sum(1)], 1).tolist()


def _allowed_errors(number: np.ndarray, error_rate: float, delta: float) -> np.ndarray:
    """Most errors in `number` trials that keep the upper bound at or below `error_rate`; -1 if none does."""
    allowed = binom.ppf(delta, number, error_rate)
    return np.where(binom.cdf(allowed, number, error_rate) > delta, allowed - 1, allowed)


__all__ = ["RiskControl", "clopper_pearson_upper"]
