"""The metrics of an evaluation as tables for people: in the report and in the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .metric_names import SIGNALS, UNDEFINED, key_for, measured, metric

RETRIEVAL = ("recall_at_{n}", "r_precision", "map_at_r", "map_at_{n}", "mrr", "nmi", "ami", "f1")
CLASSIFICATION = ("top1", "top5", "ece", "nll")
_UNCERTAINTY = ("auroc", "aurc", "e_aurc", "accuracy_at_{n}_coverage")
_HARDER = ("crop_test", "corruption_spearman_{name}", "ood_auroc")


@dataclass(frozen=True)
class Table:
    """A titled table of strings."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        import pandas

        return f"{self.title}\n{pandas.DataFrame(self.rows, columns=self.head).to_string(index=False)}"


def metric_tables(metrics: dict[str, Any]) -> list[Table]:
    """The metrics of an evaluation as tables; those that were not measured are left out.

    Example:
        >>> print(metric_tables({"protocol": "plain", "recall_at_1": 0.5, "mrr": 0.75})[0])
        Retrieval
        protocol    R@1    MRR
           plain 0.5000 0.7500
    """
    tables = (
        _retrieval(metrics),
        _by_signal("Uncertainty", _UNCERTAINTY_NOTE, _UNCERTAINTY, metrics),
        _harder(metrics),
    )
    return [table for table in tables if table.rows]


def number(value: Any) -> str:
    """A value as it stands in `metrics.json`, to four decimals.

    Example:
        >>> number(0.25), number(None), number("")
        ('0.2500', 'undefined', '')
    """
    if value is None:
        return UNDEFINED
    return value if isinstance(value, str) else f"{value:.4f}"


_UNCERTAINTY_NOTE = (
    "Does the signal know when the nearest image is wrong? "
    f"{metric('auroc').title}: higher is better, chance is 0.5. "
    f"{metric('aurc').title}: lower is better, chance is the error {metric('error_rate').name}. "
    f"{metric('accuracy_at_80_coverage').title.replace('80', 'c')}: among the c % most certain queries."
)


def _retrieval(metrics: dict[str, Any]) -> Table:
    keys = measured(metrics, *RETRIEVAL)
    head = ["protocol", *(metric(key).title for key in keys)]
    rows = []
    if keys:
        rows.append([metrics.get("protocol", ""), *(number(metrics[key]) for key in keys)])
    if "plain_recall_at_1" in metrics:
        rows.append(["plain", *(number(metrics.get(f"plain_{key}", "")) for key in keys)])
    note = "Under a grouped protocol, images of the query's class and group are ignored."
    return Table("Retrieval", note, head, rows)


def _harder(metrics: dict[str, Any]) -> Table:
    note = (
        "Crop: share of images whose crop is less certain. Others: rank correlation with the strength of a corruption "
        f"({metrics.get('robustness_images', 0)} images)."
    )
    return _by_signal("Harder images", note, _HARDER, metrics)


def _by_signal(title: str, note: str, names: Sequence[str], metrics: dict[str, Any]) -> Table:
    """A row for each signal that was measured, a column for each metric that any of them has."""
    columns = [key for name in names for key in (measured(metrics, name) or [name] * (key_for(name) in metrics))]
    rows = []
    for signal in SIGNALS.values():
        values = [metrics.get(key_for(column, signal.key), "") for column in columns]
        if any(value != "" for value in values):
            rows.append([signal.title, *map(number, values)])
    return Table(title, note, ["signal", *(metric(column).title for column in columns)], rows)


__all__ = ["CLASSIFICATION", "RETRIEVAL", "Table", "metric_tables", "number"]
