"""Crop test and corruption test: is an image that was made harder also called less certain?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset

from idml_hf.metric_names import key_for

from .corruptions import CORRUPTIONS, SEVERITIES, CorruptedImages, severity_spearman
from .ranking import rank
from .result import Embed, EmbeddedImages
from .uncertainty import NEIGHBOURS, free_signals, is_constant


def robustness_metrics(
    embed: Embed,
    images: Sequence[Any],
    embeddings: EmbeddedImages,
    labels: Any,
    groups: Any = None,
    *,
    number: int = 200,
    seed: int = 0,
    side: int | None = None,
    **search: Any,
) -> dict[str, Any]:
    """Crop and corruption tests on a fixed random subset, for the uncertainty and for the signals that cost nothing.

    A corrupted image searches the clean images without its own original (and without its class and group, if there are
    groups); similarity, margin and norm then count as "uncertain" when they are small.

    Args:
        embed: Embeds a sequence of PIL images.
        images: The N images.
        embeddings: Their embeddings.
        labels: `(N,)` classes.
        groups: `(N,)` groups, or None.
        number: Images to corrupt, 27 times each.
        seed: Seed of the subset and of all that is random in the corruptions.
        side: Shorter side to shrink images to beforehand; see `CorruptedImages`.
        **search: `metric`, `tau` and `device` of the search.

    Returns:
        `crop_test`: share of images whose crop is more uncertain; `corruption_spearman_NAME`: mean over images of the
        rank correlation of uncertainty with six severities; `corruption_spearman`: their mean. Each also with the
        suffix of a signal: `_max_similarity`, `_margin`, `_norm`. NaN for a constant uncertainty. `robustness_images`:
        how many images.
    """
    indices = np.sort(np.random.default_rng(seed).permutation(len(images))[:number])
    views = [("clean", 0), *((name, s) for name in CORRUPTIONS for s in SEVERITIES[1:]), ("crop", 1)]
    corrupted: list[Any] = [
        CorruptedImages(images, "blur" if name == "clean" else name, severity, seed, indices, side)
        for name, severity in views
    ]
    hard = embed(ConcatDataset(corrupted))
    if search.get("metric") == "introspective":
        search |= {"uncertainty": hard.uncertainty_embeds, "gallery_uncertainty": embeddings.uncertainty_embeds}
    labels = np.asarray(labels)
    # Without groups, each item is a group of its own: a query then misses its own original and nothing else.
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    ranking = rank(
        hard.semantic,
        np.tile(labels[indices], len(views)),
        np.tile(groups[indices], len(views)),
        keep=NEIGHBOURS,
        gallery=embeddings.semantic,
        gallery_labels=labels,
        gallery_groups=groups,
        **search,
    )
    metrics: dict[str, Any] = {"robustness_images": len(indices)}
    signals = {name: -certainty for name, certainty in free_signals(ranking, hard.semantic_norm).items()}
    for signal, values in {"": np.asarray(hard.uncertainty, dtype=np.float64), **signals}.items():
        by_view = dict(zip(views, values.reshape(len(views), -1), strict=True))
        judged = _judge(by_view, constant=is_constant(values))
        metrics |= {key_for(name, signal): value for name, value in judged.items()}
    return metrics


def _judge(values: dict[tuple[str, int], np.ndarray], constant: bool) -> dict[str, float]:
    clean = values["clean", 0]
    metrics = {"crop_test": float(np.mean(values["crop", 1] > clean))}
    for name in CORRUPTIONS:
        series = np.stack([clean, *(values[name, severity] for severity in SEVERITIES[1:])], axis=1)
        metrics[f"corruption_spearman_{name}"] = severity_spearman(series)
    metrics["corruption_spearman"] = float(np.mean([metrics[f"corruption_spearman_{name}"] for name in CORRUPTIONS]))
    return dict.fromkeys(metrics, float("nan")) if constant else metrics
