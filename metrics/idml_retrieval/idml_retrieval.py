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
    labels: class of each item, integers or strings; floats that are no whole numbers are refused.
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


def _features(kind: str) -> datasets.Features:
    # float64, since fewer digits would make equals of what is not
    vectors = datasets.Sequence(datasets.Value("float64"))
    return datasets.Features({"embeddings": vectors, "labels": datasets.Value(kind)})


class IDMLRetrieval(evaluate.Metric):
    """Thin over `idml_hf.evaluation`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[_features("int64"), _features("string")],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **inputs: Any) -> None:
        """Add embeddings and their labels, which Arrow would otherwise cast as it likes."""
        if inputs.get("embeddings") is not None and inputs.get("labels") is not None:
            inputs |= self._checked(inputs["embeddings"], inputs["labels"])
        super().add_batch(predictions=predictions, references=references, **inputs)

    def add(self, *, prediction: Any = None, reference: Any = None, **inputs: Any) -> None:
        """Add one embedding and its label."""
        if inputs.get("embeddings") is not None and inputs.get("labels") is not None:
            batch = self._checked([inputs["embeddings"]], [inputs["labels"]])
            inputs |= {name: column[0] for name, column in batch.items()}
        super().add(prediction=prediction, reference=reference, **inputs)

    def _checked(self, embeddings: Any, labels: Any) -> dict[str, Any]:
        from idml_hf.evaluation.arguments import as_labels, as_rows

        rows = as_rows("embeddings", embeddings).cpu().double().numpy()
        names = as_labels("labels", labels, len(rows))
        whole = names.dtype.kind == "f" and (names == names.round()).all() and (abs(names) < 2**53).all()
        if names.dtype.kind in "iub" or whole:
            if names.dtype.kind == "u" and names.max() >= 2**63:
                raise ValueError(f"labels must be integers of at most 63 bits, got {names.max()}")
            names = names.astype("int64")
        elif names.dtype.kind == "O" and isinstance(names[0], str):
            names = names.astype(str)
        elif names.dtype.kind != "U":
            raise ValueError(f"labels must be integers or strings, got {names.dtype}")
        kind = "string" if names.dtype.kind == "U" else "int64"
        if self.writer is not None and self.selected_feature_format["labels"].dtype != kind:
            raise ValueError("labels of all batches must be of one type, integers or strings")
        return {"embeddings": rows, "labels": names}

    def _infer_feature_from_batch(self, batch: dict[str, Any]) -> datasets.Features:
        return self._infer_feature_from_example({name: column[0] for name, column in batch.items()})

    def _infer_feature_from_example(self, example: dict[str, Any]) -> datasets.Features:
        return _features("string" if isinstance(example["labels"], str) else "int64")

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
