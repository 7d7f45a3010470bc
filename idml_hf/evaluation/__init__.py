"""Retrieval, clustering and uncertainty metrics on arrays, and the evaluator that puts them together."""

from __future__ import annotations

from idml_hf.image_sheet import retrieval_sheet

from .clustering import clustering_metrics
from .evaluator import RetrievalEvaluator
from .result import Evaluation
from .retrieval import Ranking, rank, retrieval_metrics
from .robustness import robustness_metrics
from .uncertainty import ood_metrics, risk_coverage, uncertainty_metrics

__all__ = [
    "Evaluation",
    "Ranking",
    "RetrievalEvaluator",
    "clustering_metrics",
    "ood_metrics",
    "rank",
    "retrieval_metrics",
    "retrieval_sheet",
    "risk_coverage",
    "robustness_metrics",
    "uncertainty_metrics",
]
