"""The picture of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from idml_hf.metric_names import metric

LEARNING_RATE = "learning_rate"
# what is drawn, of those that the log has
_PANELS = ("loss", "eval_recall_at_1", "eval_r_auroc", "eval_top1", LEARNING_RATE)


def plot_training(log: list[dict[str, Any]], path: Path) -> None:
    """Draw loss, learning rate, and what was measured on validation data against epochs.

    Args:
        log: The trainer's `state.log_history`.
        path: PNG file to write.
    """
    curves = {key: [(e["epoch"], e[key]) for e in log if e.get(key) is not None and "epoch" in e] for key in _PANELS}
    curves = {key: points for key, points in curves.items() if points}
    figure = Figure(figsize=(4 * max(1, len(curves)), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (key, points) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(1, len(curves), i)
        axes.set_title(_title(key, points), fontsize=10, wrap=True)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 40 else None, markersize=3)
    figure.savefig(path, dpi=110)


def _title(key: str, points: list[tuple[float, float]]) -> str:
    """What a curve says."""
    values = [value for _, value in points]
    if key == LEARNING_RATE:
        return f"Learning rate, at most {max(values):.2g}"
    name, first, last = metric(key).title, *(metric(key).text(value) for value in (values[0], values[-1]))
    if key == "loss":
        return f"Training {name} {'fell' if values[-1] < values[0] else 'went'} from {first} to {last}"
    epoch, best = max(points, key=lambda point: point[1])
    return f"Validation {name}:\nbest {metric(key).text(best)}, after epoch {epoch:.0f}"


__all__ = ["plot_training"]
