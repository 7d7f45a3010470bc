"""Retrieval, clustering and uncertainty metrics on arrays, and the evaluator that puts them together."""

from __future__ import annotations

from idml_hf.image_sheet import retrieval_sheet

from .ambiguity import ambiguity_metrics
from .ceiling import ceiling_metrics
from .clustering import clustering_metrics
from .evaluator import RetrievalEvaluator
from .foreign import absent_metrics, ood_metrics
from .pairs import pair_metrics
from .result import Evaluation
from .retrieval import Ranking, rank, retrieval_metrics
from .robustness import robustness_metrics
from .uncertainty import risk_coverage, uncertainty_metrics

__all__ = [
    "Evaluation",
    "Ranking",
    "RetrievalEvaluator",
    "absent_metrics",
    "ambiguity_metrics",
    "ceiling_metrics",
    "clustering_metrics",
    "ood_metrics",
    "pair_metrics",
    "rank",
    "retrieval_metrics",
    "retrieval_sheet",
    "risk_coverage",
    "robustness_metrics",
    "uncertainty_metrics",
]
