"""Plots of uncertainty, as matplotlib figures that need no display.

Colours are those of Okabe and Ito, which most people with colour blindness can tell apart; each also has a line style
or a marker of its own. Titles say what the plot shows of this model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from idml_hf.metric_names import SIGNALS, metric

from .ranking import Ranking
from .uncertainty import auroc, free_signals, is_constant, risk_coverage

_SIZE = (5.0, 3.9)  # inches; small, so that text is legible where a phone shrinks the picture
_RIGHT, _WRONG = "#0072B2", "#D55E00"
_STYLES: dict[str, dict[str, Any]] = {
    "": {"color": "#D55E00", "linestyle": "-"},
    "confidence": {"color": "#000000", "linestyle": "-"},
    "max_similarity": {"color": "#009E73", "linestyle": "--"},
    "margin": {"color": "#0072B2", "linestyle": "-."},
    "norm": {"color": "#999999", "linestyle": (0, (5, 1, 1, 1))},
    "knn_distance": {"color": "#CC79A7", "linestyle": (0, (1, 1))},
}
_MAP_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_MAP_MARKERS = "os^D"


def risk_coverage_plot(ranking: Ranking, uncertainty: Any, norms: Any = None, confidence: Any = None) -> Figure:
    """Error among the most certain share of the queries, for the uncertainty, the free signals and the perfect order.

    Args:
        ranking: From `rank`.
        uncertainty: `(N,)` uncertainty of the queries.
        norms: `(N,)` norms before normalisation, or None.
        confidence: `(N,)` calibrated confidence in the nearest image, or None. Where there is one it is the curve in
            bold, else the uncertainty's is.
    """
    counted, correct = ranking.counted, ranking.correct[ranking.counted]
    values = np.asarray(uncertainty, dtype=np.float64)[counted]
    curves = {} if confidence is None else {"confidence": np.asarray(confidence, dtype=np.float64)[counted]}
    if not is_constant(values):
        curves[""] = -values
    curves |= {name: certainty[counted] for name, certainty in free_signals(ranking, norms).items()}
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    bold = "" if confidence is None else "confidence"
    for name, certainty in curves.items():
        width, order = (2.6, 3) if name == bold else (1.3, 2)
        _draw_curve(axes, certainty, correct, SIGNALS[name].title, linewidth=width, zorder=order, **_STYLES[name])
    _draw_curve(axes, correct, correct, "perfect order", color="black", linewidth=1, linestyle=":")
    axes.axhline(np.mean(~correct), color="#666666", linewidth=1, label="random order")
    # the error among the first few queries leaps up and down, and would shrink all the rest
    top = min(1.0, max(0.05, 1.4 * float(np.mean(~correct))))
    axes.set(xlabel="share of queries answered, most certain first", xlim=(0, 1), ylim=(0, top))
    axes.set_ylabel(f"error ({metric('error_rate').name})")
    axes.set_title(_risk_title(curves, correct), fontsize=10, loc="left", wrap=True)
    axes.legend(fontsize=7.5)
    return figure


def uncertainty_histogram(ranking: Ranking, uncertainty: Any) -> Figure:
    """Density of the uncertainty of the queries that find their class first, and of those that do not."""
    counted, correct = ranking.counted, ranking.correct[ranking.counted]
    values = np.asarray(uncertainty, dtype=np.float64)[counted]
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    low, high = float(values.min()), float(values.max())
    constant = is_constant(values)
    if constant:
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 41).tolist()
    for mask, name, color, line in (
        (correct, "nearest is right", _RIGHT, "-"),
        (~correct, "nearest is wrong", _WRONG, "--"),
    ):
        if mask.any():
            label = f"{name} ({mask.sum()})"
            axes.hist(values[mask], bins=bins, density=True, color=color, alpha=0.2)
            style: dict[str, Any] = {"color": color, "histtype": "step", "linewidth": 1.6, "linestyle": line}
            axes.hist(values[mask], bins=bins, density=True, label=label, **style)
    axes.set(xlabel="uncertainty", ylabel="density of queries")
    axes.set_title(_histogram_title(-values, correct, constant), fontsize=10, loc="left", wrap=True)
    axes.legend(fontsize=7.5)
    return figure


def collection_map(
    embeddings: Any,
    labels: Any,
    uncertainty: Any,
    class_names: Sequence[str] | None = None,
    *,
    classes: int = 12,
    images: int = 300,
    seed: int = 0,
) -> Figure | None:
    """A map of some classes: images that are alike lie together, and the larger a mark the less certain its image.

    Args:
        embeddings: `(N, d)`, unit rows.
        labels: `(N,)` classes.
        uncertainty: `(N,)`.
        class_names: The name of each class, by label; by default the labels themselves.
        classes: Classes to draw, at random from those with at least two images.
        images: Images to draw, at most.
        seed: Seed of what is random.

    Returns:
        A t-SNE (van der Maaten and Hinton, 2008), or None where there are fewer than ten images to draw.
    """
    from sklearn.manifold import TSNE

    labels, uncertainty = np.asarray(labels), np.asarray(uncertainty, dtype=np.float64)
    rng = np.random.default_rng(seed)
    names, size = np.unique(labels, return_counts=True)
    chosen = rng.permutation(names[size > 1])[:classes]
    shown = rng.permutation(np.flatnonzero(np.isin(labels, chosen)))[:images]
    if len(shown) < 10:
        return None
    rows = np.asarray(embeddings, dtype=np.float32)[shown]
    perplexity = min(15.0, (len(shown) - 1) / 3)
    # equal embeddings have no principal components to start from
    start = "random" if np.ptp(rows, axis=0).max() < 1e-6 else "pca"
    places = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(rows)
    spread = np.ptp(uncertainty[shown])
    sizes = np.full(len(shown), 30.0)
    if not is_constant(uncertainty[shown]):
        sizes = 12 + 80 * (uncertainty[shown] - uncertainty[shown].min()) / spread
    figure = Figure(figsize=(_SIZE[0], 1.25 * _SIZE[1]), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(chosen):
        own = labels[shown] == name
        label = _short(str(name if class_names is None else class_names[int(name)]))
        color, marker = _MAP_COLORS[i % 6], _MAP_MARKERS[i // 6 % 4]
        x, y = places[own].T
        axes.scatter(x, y, s=sizes[own], color=color, marker=marker, alpha=0.75, linewidths=0, label=label)
    axes.set(xticks=[], yticks=[])
    axes.set_title(
        f"{len(chosen)} classes as the model sees them: what is alike lies together, what is large is uncertain",
        fontsize=10,
        loc="left",
        wrap=True,
    )
    legend = figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    for handle in legend.legend_handles:
        handle.set_sizes([40])  # type: ignore[union-attr]
    return figure


def _draw_curve(axes: Any, certainty: np.ndarray, correct: np.ndarray, name: str, **style: Any) -> None:
    coverage, risk = risk_coverage(certainty, correct)
    axes.plot(coverage, risk, label=f"{name} ({metric('aurc').title} {risk.mean():.3f})", **style)


def _risk_title(curves: dict[str, np.ndarray], correct: np.ndarray) -> str:
    """Which signal orders the queries best, and what it is good for."""
    if correct.all() or not correct.any():
        return f"All queries are {'right' if correct.all() else 'wrong'}: no order is better than another"
    best = min(curves, key=lambda name: risk_coverage(curves[name], correct)[1].mean())
    risk = risk_coverage(curves[best], correct)[1]
    half = risk[(len(risk) + 1) // 2 - 1]
    return (
        f"{100 * risk[-1]:.0f} % of all queries go wrong, {100 * half:.0f} % of the surer half\n"
        f"by the best signal, the {SIGNALS[best].title}"
    )


def _histogram_title(certainty: np.ndarray, correct: np.ndarray, constant: bool) -> str:
    if constant:
        return "The uncertainty is the same for all queries: it says nothing"
    value = auroc(certainty, correct)
    if np.isnan(value):
        return f"The uncertainty of queries that are all {'right' if correct.all() else 'wrong'}"
    return f"Of a right and a wrong query, the wrong one is the more uncertain in {100 * value:.0f} % of cases"


def _short(text: str, length: int = 24) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


__all__ = ["collection_map", "risk_coverage_plot", "uncertainty_histogram"]
