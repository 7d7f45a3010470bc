"""O(N^2), one query at a time, written from the definitions: what the fast metrics must equal."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np


def squared_cosine(query: Any, item: Any) -> Fraction:
    """sign * cosine**2 of integer vectors, exactly; it orders as the cosine does."""
    dot = sum(int(a) * int(b) for a, b in zip(query, item, strict=True))
    squares = [sum(int(a) ** 2 for a in vector) for vector in (query, item)]
    return Fraction(dot * abs(dot), squares[0] * squares[1])


def squared_distance(query: Any, item: Any) -> Fraction:
    """Minus the squared distance of integer vectors, exactly."""
    return Fraction(-sum((int(a) - int(b)) ** 2 for a, b in zip(query, item, strict=True)))


SCORES = {"cosine": squared_cosine, "euclidean": squared_distance}


def order_of(query: Any, gallery: Any, metric: str, hidden: set[int]) -> list[int]:
    """Gallery indices without the hidden ones, best first, ties by the smaller index."""
    scores = [SCORES[metric](query, item) for item in gallery]
    return [j for j in sorted(range(len(gallery)), key=lambda j: (-scores[j], j)) if j not in hidden]


def retrieval(
    embeddings: np.ndarray,
    labels: Any,
    ks: tuple[int, ...],
    groups: Any = None,
    gallery: np.ndarray | None = None,
    gallery_labels: Any = None,
    gallery_groups: Any = None,
    metric: str = "cosine",
    map_ks: tuple[int, ...] = (),
    average: str = "queries",
) -> dict[str, float] | None:
    """The result of `retrieval_metrics`; None if every query is lone."""
    own = gallery is None
    gallery, gallery_labels = (embeddings, labels) if own else (gallery, gallery_labels)
    gallery_groups = groups if own else gallery_groups
    keys = [*(f"recall_at_{k}" for k in ks), *(f"map_at_{k}" for k in map_ks), "r_precision", "map_at_r", "mrr"]
    rows: dict[str, list[float]] = {key: [] for key in keys}
    asked = []
    lone = 0
    for i, query in enumerate(embeddings):
        hidden = {i} if own else set()
        if groups is not None:
            same = zip(gallery_labels, gallery_groups, strict=True)
            hidden |= {j for j, (label, group) in enumerate(same) if label == labels[i] and group == groups[i]}
        hits = [gallery_labels[j] == labels[i] for j in order_of(query, gallery, metric, hidden)]
        relevant = sum(hits)
        if not relevant:
            lone += 1
            continue
        asked.append(labels[i])
        for cut in map_ks:
            found = [k for k in range(min(cut, len(hits))) if hits[k]]
            rows[f"map_at_{cut}"].append(sum(sum(hits[: k + 1]) / (k + 1) for k in found) / relevant)
        for k in ks:
            rows[f"recall_at_{k}"].append(float(any(hits[:k])))
        rows["r_precision"].append(sum(hits[:relevant]) / relevant)
        rows["map_at_r"].append(
            sum(sum(hits[: k + 1]) / (k + 1) for k in range(relevant) if hits[k]) / relevant,
        )
        rows["mrr"].append(1 / (hits.index(True) + 1))
    if lone == len(embeddings):
        return None
    means = {key: float(np.mean(values)) for key, values in rows.items()}
    if average == "classes":
        for key, values in rows.items():
            by_class = [[v for v, a in zip(values, asked, strict=True) if a == label] for label in set(asked)]
            means[key] = float(np.mean([np.mean(own) for own in by_class]))
    return means | {"num_queries": len(embeddings) - lone, "num_lone_queries": lone}
