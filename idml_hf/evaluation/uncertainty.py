"""Does a model know when its nearest neighbour is wrong? Uncertainty beside signals that cost nothing.

Each signal ranks the queries from certain to uncertain and is judged by

- AUROC against "the nearest item is of the query's class"; for the uncertainty this is R-AUROC of the URL benchmark
  (Kirchhof et al., 2023). 0.5 is chance;
- AURC (Geifman and El-Yaniv, 2017): the error among the n most certain queries, averaged over n = 1..N; and its excess
  over the perfect order (e-AURC, Geifman et al., 2019). Lower is better, and the error rate is chance;
- the accuracy among the 50, 80, 90 and 95 % most certain queries.

Queries that tie have no order: their expected values over all orders are taken. The free signals are the similarity of
the nearest item, the label-aware margin (see `Ranking.margin`) and the norm of the embedding before normalisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from idml_hf.metric_names import key_for
from idml_hf.search.arrays import as_array

from .arguments import as_scores
from .ranking import Ranking, rank

COVERAGES = (50, 80, 90, 95)
NEIGHBOURS = 10
"""Nearest images whose mean distance is a signal."""


def uncertainty_metrics(
    embeddings: Any,
    uncertainty: Any,
    labels: Any,
    groups: Any = None,
    *,
    norms: Any = None,
    **search: Any,
) -> dict[str, float]:
    """How well uncertainty, and the signals that cost nothing, foretell a wrong nearest neighbour.

    Args:
        embeddings: `(N, d)` embeddings.
        uncertainty: `(N,)` one number an item, larger is less certain.
        labels: `(N,)` classes.
        groups: `(N,)` groups of the re-identification protocol, as for `retrieval_metrics`.
        norms: `(N,)` norms of the embeddings before normalisation.
        **search: Further arguments of `retrieval_metrics`: a gallery, the metric, the device.

    Returns:
        `r_auroc`, `aurc`, `e_aurc` and `accuracy_at_C_coverage` (C = 50, 80, 90, 95) of the uncertainty; for each free
        signal, `max_similarity`, `margin` and, given `norms`, `norm`, the same as `auroc_SIGNAL`, `aurc_SIGNAL`,
        `e_aurc_SIGNAL` and `accuracy_at_C_coverage_SIGNAL`; `error_rate` (1 - R@1) and `uncertainty_is_constant`.
        Given `groups`, also `r_auroc_within_groups`, the mean R-AUROC among the queries of one group, which telling
        groups apart cannot raise. AUROCs are NaN if the queries are all right or all wrong. If the uncertainty is
        constant (all values within 1e-5 of each other, relatively), it says nothing: its metrics are NaN and the flag
        is `True`.

    Raises:
        ValueError: for values that are not finite and arrays of different lengths, and as `retrieval_metrics`.

    Example:
        >>> x, y = [[10, 0], [9, 1], [8, 3], [1, 9], [0, 10]], [0, 0, 1, 1, 1]
        >>> metrics = uncertainty_metrics(x, [0.1, 0.2, 0.9, 0.3, 0.2], y)
        >>> metrics["error_rate"], metrics["r_auroc"], metrics["aurc"], metrics["e_aurc"]
        (0.2, 1.0, 0.04, 0.0)
        >>> uncertainty_metrics(x, [1.0, 1.0, 1.0, 1.0, 1.0], y)["uncertainty_is_constant"]
        True
    """
    ranking = rank(embeddings, labels, groups, keep=NEIGHBOURS, **search)
    return judge_uncertainty(ranking, uncertainty, norms, groups)


def judge_uncertainty(ranking: Ranking, uncertainty: Any, norms: Any = None, groups: Any = None) -> dict[str, float]:
    """`uncertainty_metrics` from a search that was already made; arguments and result as there."""
    ranking.require_queries()
    counted, correct = ranking.counted, ranking.correct[ranking.counted]
    values = as_scores("uncertainty", uncertainty, len(counted))[counted]
    constant = is_constant(values)
    metrics: dict[str, float] = {"error_rate": float(np.mean(~correct)), "uncertainty_is_constant": constant}
    certainties = {"": np.full(len(values), np.nan) if constant else -values}
    certainties |= {name: certainty[counted] for name, certainty in free_signals(ranking, norms).items()}
    for name, certainty in certainties.items():
        metrics |= {key_for(key, name): value for key, value in judge_signal(certainty, correct).items()}
    if groups is not None:
        own = as_array(groups, "groups")[counted]
        within = [auroc(-values[own == group], correct[own == group]) for group in np.unique(own)]
        defined = [] if constant else [value for value in within if not np.isnan(value)]
        metrics[key_for("auroc", suffix="_within_groups")] = float(np.mean(defined)) if defined else float("nan")
    return metrics


def free_signals(ranking: Ranking, norms: Any = None) -> dict[str, np.ndarray]:
    """The certainty, larger is more certain, that needs no uncertainty head: name -> `(N,)`.

    The distance of the nearest images is the mean over as many as the ranking has kept.
    """
    signals = {"max_similarity": tied(ranking.scores[:, 0]), "margin": tied(ranking.margin)}
    found = ranking.neighbours >= 0
    if found.shape[1] > 1:
        near = np.where(found, ranking.scores, 0).sum(1) / np.maximum(1, found.sum(1))
        signals["knn_distance"] = tied(np.where(found[:, 0], near, -np.inf))
    if norms is not None:
        signals["norm"] = as_scores("norms", norms, len(ranking.relevant))
    return signals


def judge_signal(certainty: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    """AUROC, AURC, e-AURC and the accuracy at some coverages of one signal; NaN where the certainty is NaN.

    Args:
        certainty: `(N,)` larger is more certain.
        correct: `(N,)` booleans.

    Example:
        >>> judged = judge_signal(np.array([0.9, 0.8, 0.1]), np.array([True, True, False]))
        >>> judged["auroc"], judged["e_aurc"], judged["accuracy_at_50_coverage"]
        (1.0, 0.0, 1.0)
    """
    if np.isnan(certainty).any():
        area = excess = auc = float("nan")
        risk = np.full(len(correct), np.nan)
    else:
        risk = risk_coverage(certainty, correct)[1]
        area, auc = float(risk.mean()), auroc(certainty, correct)
        excess = area - float(risk_coverage(correct, correct)[1].mean())
    metrics = {"auroc": auc, "aurc": area, "e_aurc": excess}
    for percent in COVERAGES:
        answered = -(-percent * len(risk) // 100)
        metrics[f"accuracy_at_{percent}_coverage"] = float(1 - risk[answered - 1])
    return metrics


def risk_coverage(certainty: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    """The error among the n most certain items, for n = 1..N.

    Args:
        certainty: `(N,)` larger is more certain; items that tie count with their mean error.
        correct: `(N,)` booleans.

    Returns:
        coverage `(N,)`, n / N, and risk `(N,)`. The mean risk is the AURC.

    Example:
        >>> coverage, risk = risk_coverage([0.9, 0.8, 0.8, 0.1], [True, False, True, False])
        >>> coverage.tolist(), risk.round(3).tolist()
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.333, 0.5])
    """
    certainty, correct = as_array(certainty, "certainty"), as_array(correct, "correct").astype(bool)
    if certainty.shape != correct.shape or certainty.ndim != 1 or not len(certainty):
        raise ValueError(f"certainty and correct must be vectors alike, got {certainty.shape} and {correct.shape}")
    if np.isnan(certainty).any():
        raise ValueError(f"certainty has NaN values, first at {int(np.isnan(certainty).argmax())}")
    _, tie, size = np.unique(certainty, return_inverse=True, return_counts=True)
    mean_error = np.bincount(tie, weights=~correct) / size
    count = np.arange(1, len(certainty) + 1)
    return count / len(count), np.cumsum(mean_error[np.sort(tie)[::-1]]) / count


def auroc(score: Any, positive: Any) -> float:
    """Probability that a random positive scores above a random negative, a tie counting half.

    NaN if one kind lacks, or a score is NaN.

    Example:
        >>> auroc([0.9, 0.8, 0.8, 0.1], [True, False, True, False])
        0.875
    """
    score, positive = as_array(score, "score"), as_array(positive, "positive").astype(bool)
    if score.shape != positive.shape or score.ndim != 1:
        raise ValueError(f"score and positive must be vectors alike, got {score.shape} and {positive.shape}")
    if positive.all() or not positive.any() or np.isnan(score).any():
        return float("nan")
    # ranks, since scikit-learn refuses a margin that is infinite
    return float(roc_auc_score(positive, rankdata(score)))


def is_constant(values: np.ndarray, relative: float = 1e-5) -> bool:
    """Whether all values are the same up to rounding, as the norm of an L2-normalised uncertainty embedding is."""
    return bool(np.ptp(values) <= relative * np.abs(values).max())


def tied(values: np.ndarray, relative: float = 2.0**-38) -> np.ndarray:
    """`values` with those made equal that differ by rounding alone: neighbours in order, nearer than `relative`.

    Two queries that are equally near may get scores whose last bits differ, and no order may be read into that.

    Example:
        >>> len(set(tied(np.array([0.5**0.5, 1 / 2**0.5, 0.1 + 0.2, 0.3, np.inf])).tolist()))
        3
    """
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    finite = np.abs(ordered[np.isfinite(ordered)])
    with np.errstate(invalid="ignore"):  # infinite values of one sign are equal
        apart = np.diff(ordered) > relative * finite.max(initial=0)
    first = np.concatenate([[0], np.flatnonzero(apart) + 1])[: len(ordered)]
    result = np.empty_like(values)
    result[order] = ordered[first[np.concatenate([[0], np.cumsum(apart)])[: len(ordered)]]]
    return result
