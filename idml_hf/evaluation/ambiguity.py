"""Ambiguous queries: half of them degraded, the gallery clean. What an image alone can know about its match.

On clean pictures of unknown classes, how lucky a query is depends on the gallery more than on the picture. What a
picture does show is that it is blurred, noisy or covered, so this is where an uncertainty is put to the test.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idml_hf.metric_names import key_for

from .corruptions import PartlyDegradedImages
from .ranking import rank
from .result import Embed, EmbeddedImages
from .uncertainty import NEIGHBOURS, auroc, free_signals, is_constant, judge_signal

_SUFFIX = "_ambiguous"


def ambiguity_metrics(
    embed: Embed,
    images: Any,
    embeddings: EmbeddedImages,
    labels: Any,
    groups: Any = None,
    *,
    number: int = 2000,
    seed: int = 0,
    side: int | None = None,
    **search: Any,
) -> dict[str, Any]:
    """Does a signal foretell wrong matches where half of the queries are degraded, and tell those from the clean ones?

    Half of a fixed random subset is blurred, made noisy or partly covered at a random severity from 1 to 5
    (`corruptions.UNSEEN`: training does nothing of the kind). Each query searches the clean images without its own
    original, and without its class and group if there are groups.

    Args:
        embed: Embeds a sequence of PIL images.
        images: The N images.
        embeddings: Their embeddings.
        labels: `(N,)` classes.
        groups: `(N,)` groups, or None.
        number: Queries, at most.
        seed: Seed of the subset and of all that is random in the corruptions.
        side: Shorter side to shrink images to beforehand; see `CorruptedImages`.
        **search: `metric`, `tau` and `device` of the search.

    Returns:
        `r_auroc_ambiguous`, `aurc_ambiguous`, `e_aurc_ambiguous` and `accuracy_at_C_coverage_ambiguous` of the
        uncertainty, the same of each free signal (`auroc_max_similarity_ambiguous`, ...), `degraded_auroc` and
        `degraded_auroc_SIGNAL`: the AUROC of degraded against clean queries; `error_rate_ambiguous`, and
        `ambiguous_images`: how many queries. NaN for a constant uncertainty.
    """
    labels = np.asarray(labels)
    # A query is asked only if there is something to find, as everywhere else.
    own = np.arange(len(labels)) if groups is None else np.asarray(groups)
    counted = np.flatnonzero(_have_matches(labels, own))
    indices = np.sort(np.random.default_rng(seed).permutation(counted)[:number])
    if len(indices) < 2:
        return {}
    queries = PartlyDegradedImages(images, seed, indices, side)
    asked = embed(queries)
    if search.get("metric") == "introspective":
        search |= {"uncertainty": asked.uncertainty_embeds, "gallery_uncertainty": embeddings.uncertainty_embeds}
    ranking = rank(
        asked.semantic,
        labels[indices],
        own[indices],
        keep=NEIGHBOURS,
        gallery=embeddings.semantic,
        gallery_labels=labels,
        gallery_groups=own,
        **search,
    )
    degraded = queries.severity > 0
    certainty = {"": -np.asarray(asked.uncertainty, dtype=np.float64)}
    certainty |= free_signals(ranking, asked.semantic_norm)
    metrics: dict[str, Any] = {
        "ambiguous_images": len(indices),
        key_for("error_rate", suffix=_SUFFIX): float(np.mean(~ranking.correct)),
    }
    for name, values in certainty.items():
        if not name and is_constant(values):
            values = np.full(len(values), np.nan)
        judged = judge_signal(values, ranking.correct)
        metrics |= {key_for(key, name, suffix=_SUFFIX): value for key, value in judged.items()}
        metrics[key_for("degraded_auroc", name)] = auroc(-values, degraded)
    return metrics


def _have_matches(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """`(N,)` whether there is an item of the class in another group."""
    _, classes = np.unique(labels, return_inverse=True)
    _, number = np.unique(groups, return_inverse=True)
    _, both, size = np.unique(
        classes.astype(np.int64) * (number.max() + 1) + number, return_inverse=True, return_counts=True
    )
    return np.bincount(classes)[classes] > size[both]


__all__ = ["ambiguity_metrics"]
