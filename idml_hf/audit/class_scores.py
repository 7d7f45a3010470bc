"""What is said of each label by class models that have not seen it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ClassScores:
    """What held-out class models say of N labelled pictures.

    Args:
        log_odds: float64 `(N,)`, of all other classes together against the own class; NaN where nothing but the
            picture itself is known of its class.
        suggested: int64 `(N,)`, the likeliest other class.
        stratum: int64 `(N,)`, how near the own class is to `suggested`: 0 for the nearest classes.
        nearest: float64 `(N,)`, cosine with the most similar picture of other folds, in the discriminant space.
        tried: float64 `(N, S, T)`, the log odds that the picture would have had under T other labels of each of S
            strata, as near to what it looks like as the stratum says; NaN where there is none.
    """

    log_odds: np.ndarray
    suggested: np.ndarray
    stratum: np.ndarray
    nearest: np.ndarray
    tried: np.ndarray

    @classmethod
    def empty(cls, count: int, strata: int, draws: int) -> ClassScores:
        """Scores of `count` pictures, to be put in."""
        return cls(
            np.full(count, np.nan),
            np.zeros(count, dtype=np.int64),
            np.zeros(count, dtype=np.int64),
            np.full(count, np.nan),
            np.full((count, strata, draws), np.nan),
        )

    def put(self, places: np.ndarray, *values: np.ndarray) -> None:
        """Put in the fields of the pictures at `places`."""
        fields = (self.log_odds, self.suggested, self.stratum, self.nearest, self.tried)
        for field, value in zip(fields, values, strict=True):
            field[places] = value


__all__ = ["ClassScores"]
