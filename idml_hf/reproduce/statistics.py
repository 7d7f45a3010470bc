"""Mean, spread and paired difference over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and its 95 % interval.

    Args:
        mean: Mean over the pairs.
        low, high: Ends of Student's interval; NaN for a single pair.
        pairs: Number of pairs.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is NaN for a single value.

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def paired_difference(ours: Mapping[int, float], plain: Mapping[int, float]) -> Difference | None:
    """The mean of `ours - plain` over the seeds that both have, and None if there is no such seed.

    Example:
        >>> d = paired_difference({0: 3.0, 1: 5.0, 2: 4.0}, {0: 1.0, 1: 2.0, 2: 3.0, 3: 9.0})
        >>> d.mean, round(d.low, 3), round(d.high, 3), d.pairs
        (2.0, -0.484, 4.484, 3)
    """
    seeds = sorted(set(ours) & set(plain))
    if not seeds:
        return None
    differences = np.array([ours[seed] - plain[seed] for seed in seeds], dtype=np.float64)
    mean, n = float(differences.mean()), len(differences)
    if n == 1:
        return Difference(mean, float("nan"), float("nan"), 1)
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5)
    return Difference(mean, mean - half, mean + half, n)


__all__ = ["Difference", "mean_and_deviation", "paired_difference"]
