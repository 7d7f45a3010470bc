"""The mean direction of each class of a gallery: what its images have in common, whatever else differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from idml_hf.search import nearest


@dataclass(frozen=True)
class ClassMeans:
    """Mean directions of C classes.

    Args:
        labels: int64 (C,), rising.
        sums: float32 (C, d), sum of the semantic embeddings of each class.
    """

    labels: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, semantic: np.ndarray, labels: np.ndarray) -> ClassMeans:
        """The classes of labelled rows (N, d); rows labelled -1 have none."""
        known = np.flatnonzero(labels >= 0)
        classes, rows = np.unique(labels[known], return_inverse=True)
        members = csr_matrix((np.ones(len(known), np.float32), (rows, known)), shape=(len(classes), len(labels)))
        return cls(classes, np.asarray(members @ semantic))

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
        left_out: np.ndarray | None = None,
    ) -> np.ndarray:
        """How much nearer each query is to the mean of its match's class than to that of any other.

        Args:
            queries: float32 (Q, d), unit rows.
            match_labels: int64 (Q,), class of each query's match; -1 if unknown.
            similarity: float (Q,), of query and match; it stands for the class of a match of unknown class.
            query_labels: int64 (Q,), where the queries are themselves among the rows: their classes, and
            left_out: float32 (Q, d), the sum of those rows of a query's class that it must not see, itself included.

        Returns:
            float64 (Q,), difference of two cosines.
        """
        if not len(self.labels):
            return np.asarray(similarity, dtype=np.float64)
        directions = _directions(self.sums)
        match = self.rows_of(match_labels)
        own = np.where(match < 0, similarity, _cosines(queries, directions[match]))
        # the match's class and the query's may be the nearest two, and do not count
        scores, rows = nearest(queries, directions, min(3, len(directions)), are_unit_rows=True)
        scores = np.where(rows == match[:, None], -1, scores)
        if query_labels is None or left_out is None:
            return own - scores.max(1)
        mine = self.rows_of(query_labels)
        seen = _cosines(queries, _directions(self.sums[mine] - left_out))
        own = np.where(match == mine, seen, own)
        others = np.where(rows == mine[:, None], -1, scores).max(1)
        return own - np.where(match == mine, others, np.maximum(others, seen))


def _directions(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", a, b, dtype=np.float64)


__all__ = ["ClassMeans"]
