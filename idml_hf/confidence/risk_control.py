"""Which answers to give so that a promised error rate holds.

Learn-then-Test (Angelopoulos et al., 2021): thresholds on the confidence are tested one after the other, from few
answers to many, against "the error rate among the answers is above the promise". Testing stops at the first that
cannot be rejected (fixed-sequence testing), and of those before it the last but one is used: the last has often passed
by luck. Where testing starts is chosen by the confidences, not by what is right.

A test rejects if an upper confidence bound of the error rate is at most the promise. Queries are not independent:
their classes come in families that are mistaken for each other. The bound is that of Korn and Graubard (1998) for
proportions from samples of clusters: Clopper and Pearson's, with the number of independent queries that would leave as
much to chance as the families do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import beta, t

from idml_hf.search.arrays import as_share

STEPS = 100


@dataclass(frozen=True)
class RiskControl:
    """Outcomes of all tests, from which the threshold for any promise follows.

    Args:
        thresholds: confidence from which on an answer is given, falling.
        answered: share of queries with at least that confidence.
        error: share of their answers that are wrong.
        bound: upper confidence bound of that share.
        effective: number of independent answers that would leave as much to chance.
        expected: share of wrong answers as the confidences have it, and
        units: number of families that the answers are as much as, whatever is right: what testing starts by.
        delta: chance that a promise is broken.
    """

    thresholds: Sequence[float]
    answered: Sequence[float]
    error: Sequence[float]
    bound: Sequence[float]
    effective: Sequence[float]
    expected: Sequence[float]
    units: Sequence[float]
    delta: float = 0.05

    @classmethod
    def test(
        cls,
        confidence: np.ndarray,
        correct: np.ndarray,
        families: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        delta: float = 0.05,
    ) -> RiskControl:
        """Test all thresholds.

        Args:
            confidence: (N,), of queries that it was not learnt from.
            correct: bool (N,), whether their answers are right.
            families: int (N,), of look-alike classes; None: the queries are independent.
            weight: (N,), how many of the queries to come each stands for; None: all the same.
            delta: chance that a promise is broken.

        Raises:
            ValueError: if there are no queries, or `delta` is not in (0, 1).
        """
        if not len(confidence):
            raise ValueError("there are no queries to test a promise on")
        delta = as_share(delta, "delta")
        weight = np.ones(len(confidence)) if weight is None else np.asarray(weight, dtype=float)
        weight = weight / weight.mean()
        families = np.arange(len(confidence)) if families is None else families
        order = np.argsort(-confidence, kind="stable")
        shares = np.cumsum(weight[order]) / weight.sum()
        at = np.searchsorted(shares, np.arange(1, STEPS + 1) / STEPS - 1e-9).clip(max=len(order) - 1)
        thresholds = np.unique(confidence[order[at]])[::-1]
        answers = (confidence >= thresholds[:, None]) * weight
        wrong = answers * ~correct
        number, mistakes = answers.sum(1), wrong.sum(1)
        effective, units = effective_numbers(answers, wrong, families, delta)
        error = mistakes / number
        return cls(
            thresholds=thresholds.tolist(),
            answered=(number / weight.sum()).tolist(),
            error=error.tolist(),
            bound=clopper_pearson_upper(error * effective, effective, delta).tolist(),
            effective=effective.tolist(),
            units=units.tolist(),
            expected=((answers * (1 - confidence)).sum(1) / number).tolist(),
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
        return 0.0 if step is None else float(self.answered[step])

    def hindsight(self, error_rate: float) -> float:
        """Largest share of the tested queries that could have been answered with so many of the answers wrong."""
        kept = np.asarray(self.error) <= error_rate
        return float(np.asarray(self.answered)[kept].max(initial=0.0))

    def missing(self, error_rate: float) -> float | None:
        """How many times as many families would let a promise be kept that now cannot; None if none would.

        0 where it can be kept.
        """
        if self.threshold(error_rate) is not None:
            return 0.0
        error, effective = np.asarray(self.error), np.asarray(self.effective)
        for factor in 2.0 ** np.arange(0.5, 8.5, 0.5):
            bound = clopper_pearson_upper(error * effective * factor, effective * factor, self.delta)
            if (bound <= error_rate).any():
                return float(factor) - 1
        return None

    def _last_step(self, error_rate: float) -> int | None:
        error_rate = as_share(error_rate, "error_rate")
        passed = np.asarray(self.bound) <= error_rate
        start = self._first_step(error_rate)
        if not passed[start]:
            return None
        failed = np.flatnonzero(~passed[start:])
        return len(passed) - 1 if not len(failed) else start + max(int(failed[0]) - 2, 0)

    def _first_step(self, error_rate: float) -> int:
        """The test most likely to be passed, by the confidences alone; of equals, the one with the most answers."""
        units, expected = np.asarray(self.units), np.asarray(self.expected)
        bound = clopper_pearson_upper(expected * units, units, self.delta)
        slack = np.round(error_rate - bound, 3)
        return len(slack) - 1 - int(slack[::-1].argmax())


def effective_numbers(
    answers: np.ndarray, wrong: np.ndarray, families: np.ndarray, delta: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """How many independent answers would leave as much to chance as those given to whole families do.

    Args:
        answers: (T, N), weight of each query where it is answered, for each of T thresholds.
        wrong: (T, N), the same where the answer is wrong.
        families: int (N,).
        delta: level of the test: where the spread is known from few families, Student's distribution asks for more.

    Returns:
        float (T,), at most the answers' own number; and the number of families that the answers are as much as.
    """
    number, code = np.unique(families, return_inverse=True)
    members = csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))), shape=(len(number), len(code)))
    a, w = (np.asarray(members @ rows.T).T for rows in (answers, wrong))
    total, mistakes = a.sum(1), w.sum(1)
    kish = total**2 / (answers**2).sum(1)
    groups = (a > 0).sum(1)
    p = mistakes / total
    variance = ((w - p[:, None] * a) ** 2).sum(1) / total**2 * groups / np.maximum(groups - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        design = np.where(p * (1 - p) > 0, variance * kish / (p * (1 - p)), np.nan)
    # where hardly anything is wrong, families are as much alike as at the thresholds where much is
    size = (a**2).sum(1) / total * kish / total
    rho = np.clip((design - 1) / np.maximum(size - 1, 1e-9), 0, 1)
    enough = np.isfinite(rho) & (mistakes >= 10) & (size > 1.01)
    alike = rho[enough].mean() if enough.any() else 1.0
    design = np.fmax(np.fmax(design, 1 + alike * np.maximum(size - 1, 0)), 1.0)
    n = kish / design
    units = total**2 / (a**2).sum(1)
    n *= (t.ppf(1 - delta, np.maximum(kish - 1, 1)) / t.ppf(1 - delta, np.maximum(units - 1, 1))) ** 2
    return np.maximum(n, 1e-6), units


def clopper_pearson_upper(wrong: np.ndarray, number: np.ndarray, delta: float) -> np.ndarray:
    """Upper confidence bound of a rate at level 1 - `delta`, from `wrong` of `number` independent trials.

    Example:
        >>> clopper_pearson_upper(np.array([0, 2, 59]), np.array([59, 59, 59]), 0.05).round(3).tolist()
        [0.05, 0.103, 1.0]
    """
    wrong, number = np.asarray(wrong), np.asarray(number)
    left = number - wrong
    return np.where(left <= 0, 1.0, beta.ppf(1 - delta, wrong + 1, np.maximum(left, 1e-9)))


__all__ = ["RiskControl", "clopper_pearson_upper", "effective_numbers"]
