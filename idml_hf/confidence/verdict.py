"""What is said of the first match of a query: an answer, or "not sure"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Verdict:
    """The verdict on Q queries.

    Args:
        confidence: float64 (Q,), probability that the first match is right.
        bar: the confidence that an answer takes; infinite where no promise can be kept, so that nothing is answered.
        error_rate: the promised share of wrong first matches among the answers.
    """

    confidence: np.ndarray
    bar: float
    error_rate: float

    @property
    def abstained(self) -> np.ndarray:
        """Whether the first match is too doubtful to be an answer, bool (Q,)."""
        return self.confidence < self.bar


__all__ = ["Verdict"]
