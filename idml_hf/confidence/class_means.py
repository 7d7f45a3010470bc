"""The mean direction of each class of a gallery: what its images have in common, whatever else differs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from idml_hf.search import nearest


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """Mean directions of C classes.

    Args:
        labels: int64 (C,), rising.
        sums: float32 (C, d), sum of the semantic embeddings of each class.
        counts: int64 (C,), their number.
    """

    labels: np.ndarray
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, semantic: np.ndarray, labels: np.ndarray) -> ClassMeans:
        """The classes of labelled rows (N, d); rows labelled -1 have none."""
        known = np.flatnonzero(labels >= 0)
        classes, rows, counts = np.unique(labels[known], return_inverse=True, return_counts=True)
        members = csr_matrix((np.ones(len(known), np.float32), (rows, known)), shape=(len(classes), len(labels)))
        return cls(classes, np.asarray(members @ semantic), counts)

    def rows_of(self, labels: np.ndarray) -> np.ndarray:
        """Row of each label, -1 for one that is not there."""
        if not len(self.labels):
            return np.full(len(labels), -1)
        rows = np.searchsorted(self.labels, labels).clip(max=len(self.labels) - 1)
        return np.where(self.labels[rows] == labels, rows, -1)

    def margin(
        self,
        queries: np.ndarray,
        match_labels: np.ndarray,
        similarity: np.ndarray,
        query_labels: np.ndarray | None = None,
        left_out: ClassMeans | None = None,
        left_out_rows: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """How near each query is to the mean of its match's class, and how much nearer than to that of any other.

        Args:
            queries: float32 (Q, d), unit rows.
            match_labels: int64 (Q,), class of each query's match; -1 if unknown.
            similarity: float (Q,), of query and match; it stands for the class of a match of unknown class.
            query_labels: int64 (Q,), where the queries are themselves among the rows: their classes, and
            left_out: sums over the rows that one query or another must not see, and
            left_out_rows: int64 (Q,), which of them each must not see.

        Returns:
            The difference of two cosines, and the first of them, float64 (Q,).
        """
        if not len(self.labels):
            cosines = np.asarray(similarity, dtype=np.float64)
            return cosines, cosines
        directions = self.directions
        match = self.rows_of(match_labels)
        own = np.where(match < 0, similarity, _cosines(queries, directions[match]))
        # the match's class and the query's may be the nearest two, and do not count
        scores, rows = nearest(queries, directions, min(3, len(directions)), are_unit_rows=True)
        scores = np.where(rows == match[:, None], -1, scores)
        if query_labels is None or left_out is None or left_out_rows is None:
            return own - scores.max(1), own
        mine = self.rows_of(query_labels)
        left = self.counts[mine] - left_out.counts[left_out_rows]
        # rounding would give a direction to the mean of nothing
        seen = np.where(left > 0, _cosines(queries, _directions(self.sums[mine] - left_out.sums[left_out_rows])), -1)
        own = np.where(match == mine, seen, own)
        others = np.where(rows == mine[:, None], -1, scores).max(1)
        return own - np.where(match == mine, others, np.maximum(others, seen)), own

    @cached_property
    def directions(self) -> np.ndarray:
        """Float32 (C, d), unit rows."""
        return _directions(self.sums)


def _directions(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", a, b, dtype=np.float64)


__all__ = ["ClassMeans"]
