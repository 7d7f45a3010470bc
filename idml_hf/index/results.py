"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The matches of Q queries, best first. Where the gallery is exhausted, id and label are -1 and the score -inf.

    Args:
        ids: int64 (Q, k), ids of the matches.
        scores: float64 (Q, k), cosine similarity or, under the introspective metric, the negative distance -D.
        labels: int64 (Q, k), -1 where the class is unknown.
        names: (Q, k) class names, empty where the class is unknown.
        paths: (Q, k) file of each match, or its name in the source of the gallery.
        match_uncertainty: float32 (Q, k), uncertainty of the matches.
        uncertainty: float32 (Q,), uncertainty of the queries.
        metric: `"cosine"` or `"introspective"`.
        confidence: float64 (Q,), probability that the first match is right; None for an index without calibration.
        abstained: bool (Q,), whether the first match is too doubtful for `error_rate`; None without calibration.
        error_rate: the promised share of wrong first matches among those not abstained from.
        queries: path of each query image, or its number.
    """

    ids: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    paths: np.ndarray
    match_uncertainty: np.ndarray
    uncertainty: np.ndarray
    metric: str = "cosine"
    confidence: np.ndarray | None = None
    abstained: np.ndarray | None = None
    error_rate: float | None = None
    queries: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-ready entry a query, with a list of its matches."""
        return [self._entry(row) for row in range(len(self))]

    def _entry(self, row: int) -> dict[str, Any]:
        matches = [
            {
                "id": int(self.ids[row, rank]),
                "score": float(self.scores[row, rank]),
                "label": int(self.labels[row, rank]),
                "name": str(self.names[row, rank]),
                "path": str(self.paths[row, rank]),
                "uncertainty": float(self.match_uncertainty[row, rank]),
            }
            for rank in np.flatnonzero(self.ids[row] >= 0)
        ]
        return {
            "query": self.queries[row] if self.queries else str(row),
            "uncertainty": float(self.uncertainty[row]),
            "confidence": None if self.confidence is None else float(self.confidence[row]),
            "abstained": None if self.abstained is None else bool(self.abstained[row]),
            "error_rate": self.error_rate,
            "metric": self.metric,
            "matches": matches,
        }


__all__ = ["SearchResult"]
