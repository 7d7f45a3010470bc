"""What is said of the first match of a query: an answer, or "not sure"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Verdict:
    """The verdict on Q queries.

    Args:
        confidence: float64 (Q,), probability that the first match is right.
        outside: bool (Q,), whether the query is like nothing that the calibration has seen: no answer is given.
        rivals: int64 (Q,), another class under which the collection holds the very picture that was matched; -1 for
            none. Which of the two is right cannot be told: no answer is given.
        bar: the confidence that an answer takes; infinite where no promise can be kept, so that nothing is answered.
        error_rate: the promised share of wrong first matches among the answers.
    """

    confidence: np.ndarray
    outside: np.ndarray
    rivals: np.ndarray
    bar: float
    error_rate: float

    @property
    def abstained(self) -> np.ndarray:
        """Whether the first match is no answer, bool (Q,)."""
        return (self.confidence < self.bar) | self.outside | (self.rivals >= 0)

    def reason(self, row: int) -> str:
        """Why a query is not answered; empty if it is."""
        if not self.abstained[row]:
            return ""
        if self.rivals[row] >= 0:
            return "the same picture is filed under two classes"
        if not np.isfinite(self.bar):
            return f"no confidence is enough to promise at most {100 * self.error_rate:g} % wrong answers"
        if self.outside[row]:
            return "it is like nothing that the calibration has seen"
        return f"an answer takes a confidence of {below(self.bar)}"


def below(confidence: float) -> str:
    """A confidence in words that never round it up: 0.8979 is 89%, not 90%.

    Example:
        >>> below(0.8979), below(0.9)
        ('89%', '90%')
    """
    return f"{int(np.floor(100 * confidence + 1e-9))}%"


__all__ = ["Verdict", "below"]
