"""Recall@K, R-precision, MAP@R, MRR and the quality of an uncertainty, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

_DESCRIPTION = """
Retrieval metrics of labelled embeddings: each item searches all others (itself removed by index, ties to the smaller
index), a hit has the same label, and items without another of their label are left out and counted. With an
uncertainty for each item, also whether it foretells a wrong nearest neighbour.
"""

_INPUTS = """
Args:
    embeddings: list of vectors, one an item.
    labels: integer class of each item.
    ks: the K of Recall@K; default (1, 2, 4, 8).
    groups: group of each item; items of the query's label and group are then ignored.
    uncertainty: one number an item, larger is less certain.
    metric: "cosine" (default) or "euclidean".

Returns:
    recall_at_K, r_precision, map_at_r, mrr, num_queries, num_lone_queries; with an uncertainty also r_auroc, aurc,
    e_aurc, ... (see `idml_hf.evaluation.uncertainty_metrics`).

Example:
    >>> metric = evaluate.load("metrics/idml_retrieval")
    >>> result = metric.compute(embeddings=[[1, 0], [9, 1], [0, 1], [1, 9]], labels=[0, 0, 1, 1], ks=(1,))
    >>> result["recall_at_1"], result["map_at_r"]
    (1.0, 1.0)
"""

_CITATION = """
@inproceedings{musgrave2020metric,
  title={A Metric Learning Reality Check},
  author={Musgrave, Kevin and Belongie, Serge and Lim, Ser-Nam},
  booktitle={ECCV},
  year={2020}
}
"""


class IDMLRetrieval(evaluate.Metric):
    """Thin over `idml_hf.evaluation`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "embeddings": datasets.Sequence(datasets.Value("float32")),
                    "labels": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self,
        embeddings: Any,
        labels: Any,
        ks: Any = (1, 2, 4, 8),
        groups: Any = None,
        uncertainty: Any = None,
        metric: str = "cosine",
    ) -> dict[str, Any]:
        from idml_hf.evaluation.retrieval import rank
        from idml_hf.evaluation.uncertainty import NEIGHBOURS, judge_uncertainty

        ranking = rank(embeddings, labels, groups, keep=NEIGHBOURS, metric=metric)
        result = ranking.metrics(ks)
        if uncertainty is not None:
            result |= judge_uncertainty(ranking, uncertainty, groups=groups)
        return result
