"""The picture of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from idml_hf.metric_names import metric


def plot_training(log: list[dict[str, Any]], path: Path) -> None:
    """Draw loss, uncertainty, and recall or accuracy on validation data (where measured) against epochs.

    Args:
        log: The trainer's `state.log_history`.
        path: PNG file to write.
    """
    panels = [
        ("loss", "training loss", ["loss"]),
        ("uncertainty_mean", "uncertainty ‖u‖ in training", ["uncertainty_mean"]),
        ("eval_recall_at_1", "validation classes", ["eval_recall_at_1", "eval_map_at_r"]),
        ("eval_top1", "validation images", ["eval_top1"]),
    ]
    panels = [panel for panel in panels if any(panel[0] in entry for entry in log)]
    figure = Figure(figsize=(4 * max(1, len(panels)), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (_, title, lines) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        for key in lines:
            points = [(entry["epoch"], entry[key]) for entry in log if key in entry]
            axes.plot(
                *zip(*points, strict=True),
                label=metric(key).title,
                marker="o" if len(points) < 40 else None,
                markersize=3,
            )
        if title.startswith("uncertainty"):
            entries = [entry for entry in log if "uncertainty_mean" in entry]
            epochs, means, spreads = (
                np.array([entry[key] for entry in entries])
                for key in ("epoch", "uncertainty_mean", "uncertainty_spread")
            )
            band = means * (1 - spreads), means * (1 + spreads)
            axes.fill_between(epochs, *band, alpha=0.2, label="± spread over images")
        if len(lines) > 1 or title.startswith("uncertainty"):
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


__all__ = ["plot_training"]
