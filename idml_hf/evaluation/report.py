"""The evaluation as one HTML file with its pictures inside, which opens without a network and reads on a phone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jinja2
import numpy as np
from PIL import Image

from idml_hf.files import write_text
from idml_hf.metric_names import SIGNALS, is_number, key_for, metric, protocol_in_words
from idml_hf.metric_tables import Table, metric_tables, number

from .plots import collection_map, risk_coverage_plot, uncertainty_histogram
from .ranking import Ranking

_SHEET_IMAGES = 24
_SHEET_QUERIES = 12
_MATCHES = 6
_SIDE = 112  # pixels of a picture in the file; shown smaller, so that it is sharp on a phone
_CLASSES = 8  # rows of the best and of the worst classes


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
        """What the model said of each image: `semantic`, `uncertainty` and `semantic_norm`."""

    @property
    def labels(self) -> np.ndarray:
        """`(N,)` classes."""


class Shown(NamedTuple):
    """A picture of the report, with what is written below it."""

    png: str
    caption: str
    note: str
    verdict: str


def write_report(
    evaluation: Evaluated,
    images: Any,
    path: str | Path,
    *,
    title: str = "Retrieval and uncertainty",
    class_names: Sequence[str] | None = None,
    confidence: Any = None,
) -> Path:
    """Write one HTML file with tables, plots and pictures.

    Args:
        evaluation: From `RetrievalEvaluator`.
        images: The evaluated images: a sequence of PIL images.
        path: Where to write; folders are made.
        title: Heading.
        class_names: The name of each class, by label; by default `images.class_names`, or else the labels themselves.
        confidence: `(N,)` calibrated confidence in the nearest image of each, or None.

    Raises:
        ValueError: if the number of images is not that of the evaluation.
    """
    if len(images) != len(evaluation.labels):
        raise ValueError(f"{len(images)} images for an evaluation of {len(evaluation.labels)}")
    if class_names is None:
        class_names = getattr(images, "class_names", None)
    pictures = _Pictures(evaluation, images, class_names, confidence)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("idml_hf.evaluation", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("report.html.jinja").render(
        title=title,
        metrics=evaluation.metrics,
        summary=_summary(evaluation.metrics),
        protocol=protocol_in_words(evaluation.metrics["protocol"]),
        tables=[*metric_tables(evaluation.metrics), *_classes(evaluation.ranking, pictures)],
        plots=_plots(evaluation, class_names, confidence),
        sheets=_sheets(evaluation, pictures),
        json=json.dumps(evaluation.metrics, indent=2),
    )
    path = Path(path)
    write_text(path, html)
    return path


def _summary(metrics: dict[str, Any]) -> list[str]:
    """What a stranger should know first."""
    found, queries = metric("recall_at_1").text(metrics["recall_at_1"]), metrics["num_queries"]
    lines = [f"{found} of {queries} queries find an image of their class first."]
    if metrics.get("num_lone_queries"):
        lines.append(
            f"{metrics['num_lone_queries']} more have no other image of their class to find; they are left out."
        )
    values = {signal: metrics.get(key_for("auroc", signal)) for signal in SIGNALS}
    known: dict[str, float] = {signal: value for signal, value in values.items() if is_number(value)}  # type: ignore
    if known and not metrics.get("uncertainty_is_constant"):
        best = max(known, key=lambda signal: known[signal])
        lines.append(
            f"What tells right from wrong matches best is {SIGNALS[best].phrase} "
            f"({metric('auroc').title} {known[best]:.3f}; 0.5 is chance)."
        )
    ambiguous, degraded = metrics.get(key_for("auroc", suffix="_ambiguous")), metrics.get("degraded_auroc")
    if is_number(ambiguous) and is_number(degraded):
        lines.append(
            f"Where half of the queries are degraded, the uncertainty has {ambiguous:.3f}, and tells degraded from "
            f"clean queries with {degraded:.3f}."
        )
    return lines


def _plots(evaluation: Evaluated, class_names: Sequence[str] | None, confidence: Any) -> list[dict[str, str]]:
    ranking, said = evaluation.ranking, evaluation.embeddings
    uncertainty = np.asarray(said.uncertainty)
    figures = {
        "Risk against coverage": risk_coverage_plot(ranking, uncertainty, said.semantic_norm, confidence),
        "Uncertainty of right and wrong queries": uncertainty_histogram(ranking, uncertainty),
        "Map of the collection": collection_map(said.semantic, evaluation.labels, uncertainty, class_names),
    }
    return [
        {"title": name, "png": _png(figure.savefig, dpi=150)} for name, figure in figures.items() if figure is not None
    ]


class _Pictures:
    """The evaluated images, as the report shows them."""

    def __init__(self, evaluation: Evaluated, images: Any, class_names: Sequence[str] | None, confidence: Any) -> None:
        self.ranking, self.labels = evaluation.ranking, evaluation.labels
        self.uncertainty = np.asarray(evaluation.embeddings.uncertainty)
        self.images, self.class_names = images, class_names
        self.confidence = None if confidence is None else np.asarray(confidence)
        self._drawn: dict[int, str] = {}

    def name(self, label: Any) -> str:
        """The name of a class."""
        return str(label if self.class_names is None else self.class_names[int(label)])

    def alone(self, i: int) -> Shown:
        """An image with its class, uncertainty, confidence, and whether its nearest image is right."""
        verdict = "none"
        if self.ranking.counted[i]:
            verdict = "right" if self.ranking.correct[i] else "wrong"
        note = f"u {self.uncertainty[i]:.3g}"
        if self.confidence is not None:
            note += f", sure {100 * self.confidence[i]:.0f} %"
        return Shown(self._draw(i), self.name(self.labels[i]), note, verdict)

    def matches(self, i: int) -> list[Shown]:
        """What was found for an image."""
        found = []
        for item, score in zip(self.ranking.neighbours[i][:_MATCHES], self.ranking.scores[i][:_MATCHES], strict=True):
            if item >= 0:
                verdict = "right" if self.labels[item] == self.labels[i] else "wrong"
                found.append(Shown(self._draw(int(item)), self.name(self.labels[item]), f"{score:.3f}", verdict))
        return found

    def _draw(self, i: int) -> str:
        if i not in self._drawn:
            picture = self.images[i].convert("RGB")
            picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            self._drawn[i] = _png(picture.save)
        return self._drawn[i]


def _sheets(evaluation: Evaluated, pictures: _Pictures) -> list[dict[str, Any]]:
    ranking = evaluation.ranking
    order = np.argsort(pictures.uncertainty, kind="stable")
    queries = order[ranking.counted[order]]
    wrong = queries[~ranking.correct[queries]]
    drawn = np.sort(np.random.default_rng(0).permutation(queries)[:_SHEET_QUERIES])
    marks = "✓ the nearest image is of the same class, ✗ it is of another, no mark: there is none to find"
    sheets: list[dict[str, Any]] = [
        {"title": "Most certain images", "note": marks, "images": order[:_SHEET_IMAGES]},
        {"title": "Least certain images", "note": f"The most uncertain first. {marks}", "images": order[::-1][:24]},
    ]
    for sheet in sheets:
        sheet["images"] = [pictures.alone(int(i)) for i in sheet["images"]]
    frames = "✓ of the query's class, ✗ of another; numbers: score of the match; u: uncertainty"
    for title, note, chosen in (
        ("Worst mistakes", f"The wrong queries that the model was most certain of. {frames}", wrong[:_SHEET_QUERIES]),
        ("Retrieval", f"Random queries and what was found for them. {frames}", drawn),
    ):
        if len(chosen):
            rows = [{"query": pictures.alone(int(i)), "matches": pictures.matches(int(i))} for i in chosen]
            sheets.append({"title": title, "note": note, "rows": rows})
    return sheets


def _classes(ranking: Ranking, pictures: _Pictures) -> list[Table]:
    """The classes that are found best and worst, where there are enough of them to tell."""
    columns = ranking.by_class(ks=(1,))
    if len(columns["label"]) < 4:
        return []
    order = np.lexsort((columns["map_at_r"], columns["recall_at_1"]))
    shown = min(_CLASSES, len(order) // 2)
    keys = ("recall_at_1", "r_precision", "map_at_r")
    head = ["class", metric("num_queries").title, *(metric(key).title for key in keys)]
    tables = []
    for title, rows in (("Classes found worst", order[:shown]), ("Classes found best", order[::-1][:shown])):
        cells = [
            [
                pictures.name(columns["label"][i]),
                str(columns["num_queries"][i]),
                *(number(columns[k][i]) for k in keys),
            ]
            for i in rows
        ]
        tables.append(Table(title, f"Of {len(order)} classes.", head, cells))
    return tables


def _png(save: Any, **options: Any) -> str:
    buffer = io.BytesIO()
    save(buffer, format="png", **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


__all__ = ["Evaluated", "write_report"]
