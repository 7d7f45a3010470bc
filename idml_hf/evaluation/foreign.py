"""Images that do not belong: of another domain, of no domain, and of classes that the gallery lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from idml_hf.metric_names import key_for

from .arguments import as_directions, as_labels, as_rows, as_scores
from .ranking import Ranking, rank
from .uncertainty import NEIGHBOURS, auroc, free_signals, is_constant


def ood_metrics(
    embeddings: Any,
    uncertainty: Any,
    labels: Any,
    ood_embeddings: Any,
    ood_uncertainty: Any,
    *,
    norms: Any = None,
    ood_norms: Any = None,
    **search: Any,
) -> dict[str, float]:
    """AUROC of telling out-of-domain (OOD) from in-domain images; OOD images search the in-domain gallery.

    Args:
        embeddings: `(N, d)` in-domain, with `uncertainty` `(N,)`, `labels` `(N,)` and perhaps `norms` `(N,)`.
        ood_embeddings: `(M, d)` out of domain, with `ood_uncertainty` `(M,)` and perhaps `ood_norms` `(M,)`.
        **search: `metric`, `device`, `block_size` of `retrieval_metrics`.

    Returns:
        `ood_auroc` (NaN for a constant uncertainty) and `ood_auroc_SIGNAL` of the free signals.

    Example:
        >>> metrics = ood_metrics([[10, 0], [9, 1], [0, 9]], [1, 1, 2], [0, 0, 1], [[5, 5], [4, 5]], [3, 4])
        >>> metrics["ood_auroc"], round(metrics["ood_auroc_max_similarity"], 3)
        (1.0, 0.667)
    """
    embeddings, ood_embeddings = as_rows("embeddings", embeddings), as_rows("ood_embeddings", ood_embeddings)
    if embeddings.shape[1] != ood_embeddings.shape[1]:
        sizes = embeddings.shape[1], ood_embeddings.shape[1]
        raise ValueError(f"embeddings have {sizes[0]} dimensions, ood_embeddings {sizes[1]}")
    if search.get("metric", "cosine") != "euclidean":
        ood_embeddings = as_directions("ood_embeddings", ood_embeddings)
    classes = np.unique(as_labels("labels", labels, len(embeddings)), return_inverse=True)[1].reshape(-1)
    inside = rank(embeddings, classes, keep=NEIGHBOURS, **search)
    nowhere = np.full(len(ood_embeddings), -1)
    outside = rank(ood_embeddings, nowhere, gallery=embeddings, gallery_labels=classes, keep=NEIGHBOURS, **search)
    own, theirs = len(inside.relevant), len(outside.relevant)
    return judge_foreign(
        "ood_auroc",
        (inside, as_scores("uncertainty", uncertainty, own), norms),
        (
            outside,
            as_scores("ood_uncertainty", ood_uncertainty, theirs),
            None if ood_norms is None else as_scores("ood_norms", ood_norms, theirs),
        ),
    )


def judge_foreign(
    name: str, inside: tuple[Ranking, np.ndarray, Any], outside: tuple[Ranking, np.ndarray, Any]
) -> dict[str, float]:
    """AUROC of telling foreign images from those that belong, by the uncertainty and by each free signal.

    Args:
        name: The metric's name, such as `ood_auroc`.
        inside: What was found for images that belong, their uncertainty `(N,)`, and their norms `(N,)` or None.
        outside: The same of the foreign images, searched in the same gallery.
    """
    values = np.concatenate([inside[1], outside[1]])
    foreign = np.arange(len(values)) >= len(inside[1])
    metrics = {name: float("nan") if is_constant(values) else auroc(values, foreign)}
    theirs = free_signals(outside[0], outside[2])
    for signal, certainty in free_signals(inside[0], inside[2]).items():
        if signal in theirs:
            metrics[key_for(name, signal)] = auroc(-np.concatenate([certainty, theirs[signal]]), foreign)
    return metrics


def absent_metrics(embeddings: Any, labels: Any, groups: Any = None, **search: Any) -> dict[str, float]:
    """AUROC of telling queries whose class the gallery lacks from those whose class it has.

    Each query is asked twice, once with all images of its class out of the gallery. An uncertainty is the same both
    times, so only signals that look at the gallery can tell.

    Args:
        embeddings: `(N, d)`.
        labels: `(N,)` classes.
        groups: `(N,)` groups, or None.
        **search: Further arguments of `retrieval_metrics`.

    Returns:
        `absent_auroc_SIGNAL` of the free signals.

    Example:
        >>> absent_metrics([[10, 0], [9, 1], [0, 9], [1, 9]], [0, 0, 1, 1])["absent_auroc_max_similarity"]
        1.0
    """
    there = rank(embeddings, labels, groups, keep=NEIGHBOURS, **search)
    # all of one group: every item of the query's class is ignored
    gone = rank(embeddings, labels, np.zeros(len(there.relevant), dtype=np.int64), keep=NEIGHBOURS, **search)
    counted = there.counted & (gone.neighbours[:, 0] >= 0)
    absent = np.repeat([False, True], counted.sum())
    signals = free_signals(gone)
    return {
        key_for("absent_auroc", name): auroc(-np.concatenate([certainty[counted], signals[name][counted]]), absent)
        for name, certainty in free_signals(there).items()
    }


def noise_images(number: int, side: int, seed: int = 0) -> list[Image.Image]:
    """Images of independent uniform pixels.

    Example:
        >>> noise_images(2, 8)[0].size
        (8, 8)
    """
    rng = np.random.default_rng([seed, *b"noise"])
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(number)]


def blank_images(number: int, side: int, seed: int = 0) -> list[Image.Image]:
    """Images of one random colour each.

    Example:
        >>> len(set(blank_images(1, 8)[0].getdata()))
        1
    """
    rng = np.random.default_rng([seed, *b"blank"])
    return [Image.new("RGB", (side, side), tuple(rng.integers(0, 256, 3).tolist())) for _ in range(number)]


__all__ = ["absent_metrics", "blank_images", "judge_foreign", "noise_images", "ood_metrics"]
