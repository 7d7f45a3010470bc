"""Plots of uncertainty, as matplotlib figures that need no display."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from idml_hf.image_sheet import RIGHT, WRONG
from idml_hf.metric_names import SIGNALS, metric

from .retrieval import Ranking
from .uncertainty import free_signals, is_constant, risk_coverage

_COLORS = {"": "#d95f02", "max_similarity": "#1b9e77", "margin": "#7570b3", "norm": "#666666"}


def risk_coverage_plot(ranking: Ranking, uncertainty: Any, norms: Any = None) -> Figure:
    """Error among the most certain share of the queries, for the uncertainty, the free signals and the perfect order.

    Args:
        ranking: From `rank`.
        uncertainty: `(N,)` uncertainty of the queries.
        norms: `(N,)` norms before normalisation, or None.
    """
    counted, correct = ranking.counted, ranking.correct[ranking.counted]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    values = np.asarray(uncertainty)[counted]
    if not is_constant(values):
        _draw_curve(axes, -values, correct, SIGNALS[""].title, color=_COLORS[""], linewidth=2.5, zorder=3)
    for name, certainty in free_signals(ranking, norms).items():
        _draw_curve(axes, certainty[counted], correct, SIGNALS[name].title, color=_COLORS[name], linewidth=1.2)
    _draw_curve(axes, correct, correct, "perfect order", color="black", linewidth=1, linestyle=":")
    axes.axhline(np.mean(~correct), color="black", linewidth=1, linestyle="--", label="random order")
    axes.set(xlabel="share of queries answered, most certain first", xlim=(0, 1), ylim=(0, None))
    axes.set_ylabel(f"error ({metric('error_rate').name})")
    axes.legend(fontsize=8)
    return figure


def uncertainty_histogram(ranking: Ranking, uncertainty: Any) -> Figure:
    """Density of the uncertainty of the queries that find their class first, and of those that do not."""
    counted, correct = ranking.counted, ranking.correct[ranking.counted]
    values = np.asarray(uncertainty, dtype=np.float64)[counted]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    low, high = float(values.min()), float(values.max())
    if is_constant(values):
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 41).tolist()
    for mask, name, color in ((correct, "nearest is right", RIGHT), (~correct, "nearest is wrong", WRONG)):
        if mask.any():
            label = f"{name} ({mask.sum()})"
            axes.hist(values[mask], bins=bins, density=True, color=color, alpha=0.25)
            axes.hist(values[mask], bins=bins, density=True, color=color, histtype="step", linewidth=1.5, label=label)
    axes.set(xlabel="uncertainty", ylabel="density")
    axes.legend(fontsize=8)
    return figure


def _draw_curve(axes: Any, certainty: np.ndarray, correct: np.ndarray, name: str, **style: Any) -> None:
    coverage, risk = risk_coverage(certainty, correct)
    axes.plot(coverage, risk, label=f"{name} ({metric('aurc').title} {risk.mean():.3f})", **style)
