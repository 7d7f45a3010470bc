"""Of the labels that look wrong, how many are? An estimate that needs no picture whose label is known to be wrong.

A held-out picture's scores do not depend on its own label, so they also tell what a wrong label would look like: its
odds under other labels are those of wrong labels, as many of them as one likes. Where such odds are common and odds of
the labels as given are rare, all that look so are wrong, which gives the share of wrong labels in the collection
(Blanchard et al., "Semi-Supervised Novelty Detection", JMLR 2010), and with it the precision above any score. Wrong
labels that name a near class and those that name any other are counted apart, since they look different.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .class_scores import ClassScores

_SEEN = 0.1  # share of wrong labels that must lie above a score for it to tell their number


@dataclass(frozen=True, eq=False)
class ExpectedPrecision:
    """What is expected of the labels that look wrong.

    Args:
        wrong: Estimated share of wrong labels among those judged, 0 to 1.
        above: float64 `(N,)`, share of wrong labels among those with odds at least as high; NaN where unknown.
    """

    wrong: float
    above: np.ndarray


def expected_precision(scores: ClassScores) -> ExpectedPrecision:
    """Estimate the share of wrong labels, in all and among those that look most wrong.

    Args:
        scores: From `cross_fit`.
    """
    above = np.full(len(scores.log_odds), np.nan)
    known = np.flatnonzero(np.isfinite(scores.log_odds))
    order = known[np.argsort(-scores.log_odds[known], kind="stable")]
    falling = scores.log_odds[order]
    wrong, expected = 0.0, np.zeros(len(order))
    for stratum in range(scores.tried.shape[1]):
        seen = _share_above(scores.tried[known, stratum], falling)
        share = _share_of_wrong(scores.stratum[order] == stratum, seen)
        wrong += share
        expected += share * seen
    precision = np.minimum(1, expected * len(order) / np.arange(1, len(order) + 1))
    # it falls with the score, and deeper cuts, of more labels, are known better
    above[order] = np.maximum.accumulate(precision[::-1])[::-1]
    return ExpectedPrecision(min(1.0, wrong), above)


def _share_above(tried: np.ndarray, falling: np.ndarray) -> np.ndarray:
    """Share of the odds of wrong labels that are at least as high as each of `falling`."""
    rising = np.sort(tried[np.isfinite(tried)])
    return (len(rising) - np.searchsorted(rising, falling, side="left")) / max(1, len(rising))


def _share_of_wrong(counted: np.ndarray, seen: np.ndarray) -> float:
    """Share of the labels that are wrong and of a stratum, given which of all, in falling order, are of it."""
    number = np.cumsum(counted)
    tells = counted & (seen >= _SEEN)
    if not tells.any():
        return 0.0
    # one standard error, against the bias of a minimum
    return float(((number + np.sqrt(number))[tells] / seen[tells]).min() / len(counted))


__all__ = ["ExpectedPrecision", "expected_precision"]
