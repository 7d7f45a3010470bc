"""Metrics as a table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from idml_hf.metric_names import measured, metric, protocol_in_words

_SHOWN = (
    "recall_at_1",
    "recall_at_2",
    "recall_at_4",
    "recall_at_8",
    "r_precision",
    "map_at_r",
    "nmi",
    "r_auroc",
    "auroc_max_similarity",
    "auroc_margin",
    "r_auroc_ambiguous",
    "auroc_max_similarity_ambiguous",
    "degraded_auroc",
    "confidence_auroc",
    "answered_at_{n}",
    "error_at_{n}",
    "untrained_recall_at_1",
    "pixels_recall_at_1",
    "top1",
    "top5",
    "ece",
    "nll",
    "seconds",
)


def metrics_table(metrics: dict[str, Any]) -> Table:
    """The main metrics, with those of the ungrouped protocol beside them where there are two."""
    plain = any(key.startswith("plain_") for key in metrics)
    words = f"{metrics.get('dataset', '')}: {protocol_in_words(metrics.get('protocol', 'plain'))}"
    # file names may hold what the terminal would take for markup
    table = Table(title=Text(words, style="table.title"))
    table.add_column("metric")
    table.add_column("value", justify="right")
    if plain:
        table.add_column("ungrouped", justify="right")
    for key in measured(metrics, *_SHOWN):
        shown = metric(key)
        cells = [shown.title, shown.text(metrics[key])]
        if plain:
            cells.append(shown.text(metrics[f"plain_{key}"]) if f"plain_{key}" in metrics else "")
        table.add_row(*cells)
    return table


def print_table(table: Table) -> None:
    """Print a table to the terminal."""
    Console().print(table)


__all__ = ["metrics_table", "print_table"]
