"""Metrics as a table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

# key, title, whether it is a share
_ROWS = (
    ("recall_at_1", "R@1", True),
    ("recall_at_2", "R@2", True),
    ("recall_at_4", "R@4", True),
    ("recall_at_8", "R@8", True),
    ("r_precision", "RP", True),
    ("map_at_r", "MAP@R", True),
    ("nmi", "NMI", True),
    ("r_auroc", "R-AUROC of the uncertainty", False),
    ("auroc_max_similarity", "R-AUROC of the maximal similarity", False),
    ("untrained_recall_at_1", "R@1 before training", True),
    ("pixels_recall_at_1", "R@1 of raw pixels", True),
    ("top1", "top-1", True),
    ("top5", "top-5", True),
    ("ece", "ECE", False),
    ("nll", "NLL", False),
    ("seconds", "seconds", False),
)


def metrics_table(metrics: dict[str, Any]) -> Table:
    """The main metrics, with those of the ungrouped protocol beside them where there are two."""
    plain = any(key.startswith("plain_") for key in metrics)
    table = Table(title=f"{metrics.get('dataset', '')} ({metrics.get('protocol', 'plain')})")
    table.add_column("metric")
    table.add_column("value", justify="right")
    if plain:
        table.add_column("ungrouped", justify="right")
    for key, title, share in _ROWS:
        if key in metrics:
            cells = [title, _format(metrics[key], share)]
            if plain:
                cells.append(_format(metrics.get(f"plain_{key}"), share))
            table.add_row(*cells)
    return table


def _format(value: Any, share: bool) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if share else f"{value:.3f}" if value < 10 else f"{value:.0f}"


def print_table(table: Table) -> None:
    """Print a table to the terminal."""
    Console().print(table)


__all__ = ["metrics_table", "print_table"]
