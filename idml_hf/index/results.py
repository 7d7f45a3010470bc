"""What a search returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from idml_hf.confidence.verdict import Verdict


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
        verdict: on the first matches; None for an index without calibration.
        rivals: for each query another class under which the collection holds the very picture that was matched, or "".
        queries: path of each query image, or its number.
        metadata: by column the value of each match (Q, k), None where there is none.
    """

    ids: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    paths: np.ndarray
    match_uncertainty: np.ndarray
    uncertainty: np.ndarray
    metric: str = "cosine"
    verdict: Verdict | None = None
    rivals: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    metadata: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def confidence(self) -> np.ndarray | None:
        """float64 (Q,), probability that the first match is right; None for an index without calibration."""
        return None if self.verdict is None else self.verdict.confidence

    @property
    def abstained(self) -> np.ndarray | None:
        """Whether the first match is too doubtful for `error_rate`, bool (Q,); None without calibration."""
        return None if self.verdict is None else self.verdict.abstained

    @property
    def error_rate(self) -> float | None:
        """The promised share of wrong first matches among those not abstained from; None without calibration."""
        return None if self.verdict is None else self.verdict.error_rate

    @property
    def bar(self) -> float | None:
        """The confidence that an answer takes, infinite where no promise can be kept; None without calibration."""
        return None if self.verdict is None else self.verdict.bar

    def reason(self, row: int) -> str:
        """Why a query has no answer; empty if it has one, or without calibration."""
        if self.verdict is None:
            return ""
        if self.verdict.rivals[row] >= 0:
            return f'the same picture is filed under "{self.names[row, 0]}" and "{self.rivals[row]}"'
        return self.verdict.reason(row)

    def __len__(self) -> int:
        return len(self.ids)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-ready entry a query, with a list of its matches."""
        return [self._entry(row) for row in range(len(self))]

    def to_table(self) -> pa.Table:
        """A row for each match: `query`, `rank` from 1, `id`, `class`, `path`, `score`, `uncertainty` of the match.

        Then `query_uncertainty`, `confidence`, `abstained` and `reason` of its query, and columns of metadata, called
        `metadata.NAME` where another column has that name. A query without a match has one row without them.
        """
        rows = []
        for entry in self.to_dicts():
            matches = entry["matches"] or [{}]
            rows += [self._row(entry, match, rank) for rank, match in enumerate(matches, 1)]
        return pa.table({name: pa.array([row[name] for row in rows]) for name in rows[0]} if rows else {})

    def _row(self, entry: dict[str, Any], match: dict[str, Any], rank: int) -> dict[str, Any]:
        row = {
            "query": entry["query"],
            "rank": rank if match else None,
            "id": match.get("id"),
            "class": match.get("name"),
            "path": match.get("path"),
            "score": match.get("score"),
            "uncertainty": match.get("uncertainty"),
            "query_uncertainty": entry["uncertainty"],
            "confidence": entry["confidence"],
            "abstained": entry["abstained"],
            "reason": entry["reason"],
        }
        known = match.get("metadata", {})
        return row | {f"metadata.{name}" if name in row else name: known.get(name) for name in self.metadata}

    def _entry(self, row: int) -> dict[str, Any]:
        known = self.metadata
        matches = [
            {
                "id": int(self.ids[row, rank]),
                "score": float(self.scores[row, rank]),
                "label": int(self.labels[row, rank]),
                "name": str(self.names[row, rank]),
                "path": str(self.paths[row, rank]),
                "uncertainty": float(self.match_uncertainty[row, rank]),
                **({"metadata": {name: column[row, rank] for name, column in known.items()}} if known else {}),
            }
            for rank in np.flatnonzero(self.ids[row] >= 0)
        ]
        return {
            "query": self.queries[row] if self.queries else str(row),
            "uncertainty": float(self.uncertainty[row]),
            "confidence": None if self.verdict is None else float(self.verdict.confidence[row]),
            "bar": self.bar if self.verdict is not None and np.isfinite(self.verdict.bar) else None,
            "abstained": None if self.verdict is None else bool(self.verdict.abstained[row]),
            "reason": self.reason(row),
            "error_rate": self.error_rate,
            "metric": self.metric,
            "matches": matches,
        }


__all__ = ["SearchResult"]
