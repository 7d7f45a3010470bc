"""Retrieval, clustering and uncertainty metrics on arrays, and the evaluator that puts them together."""

from __future__ import annotations

from idml_hf.evaluation.clustering import clustering_metrics
from idml_hf.evaluation.evaluator import Evaluation, RetrievalEvaluator
from idml_hf.evaluation.retrieval import Ranking, rank, retrieval_metrics
from idml_hf.evaluation.robustness import robustness_metrics
from idml_hf.evaluation.sheets import retrieval_sheet
from idml_hf.evaluation.uncertainty import ood_metrics, risk_coverage, uncertainty_metrics

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
