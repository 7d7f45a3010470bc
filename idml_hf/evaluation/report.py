"""The evaluation as tables, and as one HTML file with its pictures inside that opens without a network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from .corruptions import CORRUPTIONS
from .plots import risk_coverage_plot, uncertainty_histogram
from .sheets import NEUTRAL, RIGHT, WRONG, image_sheet, retrieval_sheet
from .uncertainty import COVERAGES

if TYPE_CHECKING:
    from .evaluator import Evaluation

SIGNALS = {
    "": "uncertainty",
    "_max_similarity": "max similarity",
    "_margin": "margin",
    "_norm": "embedding norm",
}
_SHEET_IMAGES = 24
_SHEET_QUERIES = 12


@dataclass(frozen=True)
class Table:
    """A titled table of strings."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, *text])


def metric_tables(metrics: dict[str, Any]) -> list[Table]:
    """The metrics of an evaluation as tables for people; those that were not measured are left out.

    Example:
        >>> print(metric_tables({"protocol": "plain", "recall_at_1": 0.5, "mrr": 0.75})[0])
        Retrieval
        protocol     R@1     MRR
           plain  0.5000  0.7500
    """
    return [table for table in (_retrieval(metrics), _uncertainty(metrics), _robustness(metrics)) if table.rows]


def write_report(
    evaluation: Evaluation, images: Sequence[Any], path: str | Path, *, title: str = "Retrieval and uncertainty"
) -> Path:
    """Writes one HTML file with tables, plots and pictures.

    Args:
        evaluation: From `RetrievalEvaluator`.
        images: The evaluated images, as PIL images.
        path: Where to write; folders are made.
        title: Heading.

    Raises:
        ValueError: if the number of images is not that of the evaluation.
    """
    if len(images) != len(evaluation.labels):
        raise ValueError(f"{len(images)} images for an evaluation of {len(evaluation.labels)}")
    ranking, uncertainty = evaluation.ranking, np.asarray(evaluation.embeddings.uncertainty)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("idml_hf.evaluation", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    figures = {
        "Risk against coverage": risk_coverage_plot(ranking, uncertainty, evaluation.embeddings.semantic_norm),
        "Uncertainty of right and wrong queries": uncertainty_histogram(ranking, uncertainty),
    }
    html = environment.get_template("report.html.jinja").render(
        title=title,
        metrics=evaluation.metrics,
        tables=metric_tables(evaluation.metrics),
        plots=[{"title": name, "png": _png(figure.savefig, dpi=110)} for name, figure in figures.items()],
        sheets=_sheets(evaluation, images, uncertainty),
        json=json.dumps(evaluation.metrics, indent=2),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def _sheets(evaluation: Evaluation, images: Sequence[Any], uncertainty: np.ndarray) -> list[dict[str, str]]:
    ranking, labels = evaluation.ranking, evaluation.labels
    order = np.argsort(uncertainty, kind="stable")
    queries = order[ranking.counted[order]]
    wrong = queries[~ranking.correct[queries]]
    drawn = np.sort(np.random.default_rng(0).permutation(queries)[:_SHEET_QUERIES])
    frames = "Green: of the query's class; red and crossed: of another. Numbers: score of the match, u: uncertainty."
    sheets = [
        (
            "Most certain images",
            "Green or red: whether the nearest image is of the class. Grey: there is none to find.",
            order[:_SHEET_IMAGES],
        ),
        ("Least certain images", "The most uncertain first.", order[::-1][:_SHEET_IMAGES]),
    ]
    result = [
        {"title": name, "note": note, "png": _png(_by_uncertainty(images, chosen, ranking, uncertainty).save)}
        for name, note, chosen in sheets
    ]
    for name, note, chosen in (
        ("Worst mistakes", f"The wrong queries that the model was most certain of. {frames}", wrong[:_SHEET_QUERIES]),
        ("Retrieval", f"Random queries and what was found for them. {frames}", drawn),
    ):
        if len(chosen):
            sheet = retrieval_sheet(images, chosen.tolist(), ranking, labels, uncertainty=uncertainty)
            result.append({"title": name, "note": note, "png": _png(sheet.save)})
    return result


def _by_uncertainty(images: Sequence[Any], chosen: np.ndarray, ranking: Any, uncertainty: np.ndarray) -> Any:
    colors = np.where(ranking.correct, RIGHT, np.where(ranking.counted, WRONG, NEUTRAL))[chosen]
    captions = [f"u {uncertainty[i]:.3g}" for i in chosen]
    return image_sheet([images[int(i)] for i in chosen], captions, colors=colors)


def _png(save: Any, **options: Any) -> str:
    buffer = io.BytesIO()
    save(buffer, format="png", **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _retrieval(metrics: dict[str, Any]) -> Table:
    recalls = [key for key in metrics if key.startswith("recall_at_")]
    keys = [*recalls, "r_precision", "map_at_r", "mrr", "nmi", "f1"]
    keys = [key for key in keys if key in metrics]
    names = {"r_precision": "RP", "map_at_r": "MAP@R", "mrr": "MRR", "nmi": "NMI", "f1": "F1"}
    head = ["protocol", *(names.get(key, key.replace("recall_at_", "R@")) for key in keys)]
    rows = [[metrics["protocol"], *(_number(metrics[key]) for key in keys)]]
    if "plain_recall_at_1" in metrics:
        rows.append(["plain", *(_number(metrics.get(f"plain_{key}", "")) for key in keys)])
    note = "Under a grouped protocol, images of the query's class and group are ignored."
    return Table("Retrieval", note, head, rows)


def _uncertainty(metrics: dict[str, Any]) -> Table:
    columns = {"auroc": "AUROC", "aurc": "AURC", "e_aurc": "e-AURC"}
    columns |= {f"accuracy_at_{percent}_coverage": f"R@1 at {percent} %" for percent in COVERAGES}
    rows = []
    for suffix, name in SIGNALS.items():
        keys = ["r_auroc" if not suffix and key == "auroc" else f"{key}{suffix}" for key in columns]
        if keys[0] in metrics:
            rows.append([name, *(_number(metrics[key]) for key in keys)])
    note = (
        "Does the signal know when the nearest image is wrong? AUROC: higher is better, chance is 0.5. "
        "AURC: lower is better, chance is the error 1 - R@1. R@1 at c %: among the c % most certain queries."
    )
    return Table("Uncertainty", note, ["signal", *columns.values()], rows)


def _robustness(metrics: dict[str, Any]) -> Table:
    keys = ["crop_test", *(f"corruption_spearman_{name}" for name in CORRUPTIONS), "ood_auroc"]
    keys = [key for key in keys if key in metrics]
    rows = [
        [name, *(_number(metrics.get(f"{key}{suffix}", "")) for key in keys)]
        for suffix, name in SIGNALS.items()
        if any(f"{key}{suffix}" in metrics for key in keys)
    ]
    names = {"crop_test": "crop", "ood_auroc": "OOD AUROC"}
    head = ["signal", *(names.get(key, key.removeprefix("corruption_spearman_")) for key in keys)]
    note = (
        "Crop: share of images whose crop is less certain. Others: rank correlation with the strength of a corruption "
        f"({metrics.get('robustness_images', 0)} images)."
    )
    return Table("Harder images", note, head, rows)


def _number(value: Any) -> str:
    if value is None:
        return "undefined"
    return value if isinstance(value, str) else f"{value:.4f}"
