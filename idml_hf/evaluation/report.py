"""The evaluation as one HTML file with its pictures inside that opens without a network."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any, Protocol

import jinja2
import numpy as np

from idml_hf.files import write_text
from idml_hf.image_sheet import NEUTRAL, RIGHT, WRONG, image_sheet, retrieval_sheet
from idml_hf.metric_tables import metric_tables

from .plots import risk_coverage_plot, uncertainty_histogram
from .retrieval import Ranking

_SHEET_IMAGES = 24
_SHEET_QUERIES = 12


class Evaluated(Protocol):
    """What a report shows: an [`idml_hf.evaluation.Evaluation`]."""

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured."""

    @property
    def ranking(self) -> Ranking:
        """What was found for each image."""

    @property
    def embeddings(self) -> Any:
        """What the model said of each image, with `uncertainty` and `semantic_norm`."""

    @property
    def labels(self) -> np.ndarray:
        """`(N,)` classes."""


def write_report(
    evaluation: Evaluated, images: Any, path: str | Path, *, title: str = "Retrieval and uncertainty"
) -> Path:
    """Write one HTML file with tables, plots and pictures.

    Args:
        evaluation: From `RetrievalEvaluator`.
        images: The evaluated images: a sequence of PIL images.
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
    write_text(path, html)
    return path


def _sheets(evaluation: Evaluated, images: Any, uncertainty: np.ndarray) -> list[dict[str, str]]:
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


def _by_uncertainty(images: Any, chosen: np.ndarray, ranking: Any, uncertainty: np.ndarray) -> Any:
    colors = np.where(ranking.correct, RIGHT, np.where(ranking.counted, WRONG, NEUTRAL))[chosen]
    captions = [f"u {uncertainty[i]:.3g}" for i in chosen]
    return image_sheet([images[int(i)] for i in chosen], captions, colors=colors)


def _png(save: Any, **options: Any) -> str:
    buffer = io.BytesIO()
    save(buffer, format="png", **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
