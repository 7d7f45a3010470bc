"""Retrieval, clustering and uncertainty metrics on arrays, and the evaluator that puts them together."""

from __future__ import annotations

from idml_hf.evaluation.retrieval import Ranking, rank, retrieval_metrics

__all__ = ["Ranking", "rank", "retrieval_metrics"]
