"""The metrics of an evaluation as tables for people: in the report and in the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .metric_names import SIGNALS, UNDEFINED, key_for, measured, metric

RETRIEVAL = ("recall_at_{n}", "r_precision", "map_at_r", "map_at_{n}", "mrr", "nmi", "ami", "f1")
CLASSIFICATION = ("top1", "top5", "ece", "nll")
_UNCERTAINTY = ("auroc", "aurc", "e_aurc", "accuracy_at_{n}_coverage")
_HARDER = ("crop_test", "corruption_spearman_{name}")
_AMBIGUOUS = ("auroc", "aurc", "e_aurc", "accuracy_at_{n}_coverage", "degraded_auroc")
_FOREIGN = ("ood_auroc", "noise_auroc", "blank_auroc", "absent_auroc")
_CEILING = ("r_auroc", "r_auroc_ceiling", "r_auroc_ceiling_low", "r_auroc_ceiling_high", "r_auroc_ceiling_reached")
_PAIRS = ("pair_auroc", "pair_eer", "pair_brier", "pair_ece")


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
        _by_signal("Ambiguous queries", _ambiguous_note(metrics), _AMBIGUOUS, metrics, suffix="_ambiguous"),
        _by_signal("Harder images", _harder_note(metrics), _HARDER, metrics),
        _by_signal("Images that do not belong", _FOREIGN_NOTE, _FOREIGN, metrics),
        _ceiling(metrics),
        _pairs(metrics),
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


def _harder_note(metrics: dict[str, Any]) -> str:
    return (
        "Crop: share of images whose crop is less certain. Others: rank correlation with the strength of a corruption "
        f"({metrics.get('robustness_images', 0)} images)."
    )


def _ambiguous_note(metrics: dict[str, Any]) -> str:
    wrong = metrics.get(key_for("error_rate", suffix="_ambiguous"))
    chance = "" if wrong is None else f"; {metric('error_rate').text(wrong)} of them find another class first"
    return (
        f"Half of {metrics.get('ambiguous_images', 0)} queries are blurred, noisy or partly covered, as training has "
        f"not seen it, and the gallery is clean{chance}. Does the signal know which queries go wrong? Last column: "
        "does it tell the degraded from the clean ones?"
    )


_FOREIGN_NOTE = (
    f"{metric('auroc').title} of telling these from images that belong; 0.5 is chance. Absent: all images of the "
    "query's class are taken out of the gallery, which an uncertainty of the query alone cannot notice."
)


def _ceiling(metrics: dict[str, Any]) -> Table:
    note = (
        "What a clean image alone can tell of its luck: a probe was told the answers of half of the classes and "
        "judged on the others. The bounds hold 95 % of the splits."
    )
    keys = measured(metrics, *_CEILING) if "r_auroc_ceiling" in metrics else []
    rows = [[SIGNALS[""].title, *(number(metrics[key]) for key in keys)]] if keys else []
    return Table("Ceiling", note, ["signal", *(metric(key).paper for key in keys)], rows)


def _pairs(metrics: dict[str, Any]) -> Table:
    note = (
        f"Do two images show the same class? {metrics.get('num_pairs', 0)} pairs, half of them do. Probabilities were "
        "learnt from the pairs of other classes."
    )
    table = _by_signal("Pairs", note, _PAIRS, metrics)
    for row in table.rows:
        row[0] = "introspective distance" if row[0] == SIGNALS[""].title else row[0]
    return table


def _by_signal(title: str, note: str, names: Sequence[str], metrics: dict[str, Any], *, suffix: str = "") -> Table:
    """A row for each signal that was measured, a column for each metric that any of them has."""
    own = {key.removesuffix(suffix): None for key in metrics if key.endswith(suffix)}
    columns: list[str] = []
    for name in names:
        found = any(_key(name, signal, suffix) in metrics for signal in SIGNALS)
        columns += measured(own, name) or [name] * found
    rows = []
    for signal in SIGNALS.values():
        values = [metrics.get(_key(column, signal.key, suffix), "") for column in columns]
        if any(value != "" for value in values):
            rows.append([signal.title, *map(number, values)])
    return Table(title, note, ["signal", *(metric(column).title for column in columns)], rows)


def _key(name: str, signal: str, suffix: str) -> str:
    # what tells degraded from clean queries is measured of ambiguous ones alone
    return key_for(name, signal, suffix="" if name == "degraded_auroc" else suffix)


__all__ = ["CLASSIFICATION", "RETRIEVAL", "Table", "metric_tables", "number"]
