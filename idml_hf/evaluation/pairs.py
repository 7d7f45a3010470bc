"""Do two images show the same thing? Pairs of images, judged by a score without a gallery."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_curve

from idml_hf.metric_names import key_for
from idml_hf.search.rescoring import squared_distances
from idml_hf.similarity import TAU

from .classification import calibration_error
from .result import EmbeddedImages
from .uncertainty import auroc


def pair_metrics(
    embeddings: EmbeddedImages,
    labels: Any,
    groups: Any = None,
    *,
    number: int = 10_000,
    tau: float = TAU,
    seed: int = 0,
) -> dict[str, float]:
    """How well two scores tell pairs of one class from pairs of two: the introspective distance, and the cosine.

    Half of the pairs are of one class (and of two groups, if there are groups), half of two classes, drawn at random.
    The classes fall into two halves, and no pair has one class of each: what turns a score into a probability is
    learnt on the pairs of one half and judged on those of the other.

    Args:
        embeddings: Of N images.
        labels: `(N,)` classes.
        groups: `(N,)` groups, or None.
        number: Pairs to draw.
        tau: Temperature of the introspective distance.
        seed: Seed of the draws.

    Returns:
        `pair_auroc`, `pair_eer`, `pair_brier` and `pair_ece` of the introspective distance, the same of the cosine
        as `pair_auroc_cosine` and so on (see `judge_pairs`), and `num_pairs`. Nothing if there are no such pairs.
    """
    labels = np.unique(np.asarray(labels), return_inverse=True)[1]
    groups = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    half = rng.permutation(labels.max() + 1) % 2
    parts = []
    for side in (0, 1):
        items = np.flatnonzero(half[labels] == side)
        drawn = draw_pairs(labels[items], None if groups is None else groups[items], number // 2, rng)
        parts.append((items[drawn[0]], items[drawn[1]], drawn[2], np.full(len(drawn[2]), side)))
    left, right, same, sides = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not all(same[sides == side].any() and not same[sides == side].all() for side in (0, 1)):
        return {}
    uncertainty = np.asarray(embeddings.uncertainty_embeds, dtype=np.float32)
    semantic = np.asarray(embeddings.semantic, dtype=np.float32)
    nothing = np.zeros((len(semantic), 1), dtype=np.float32)
    scores = {
        "": -squared_distances(semantic, uncertainty, semantic, uncertainty, left, right, tau),
        "cosine": -squared_distances(semantic, nothing, semantic, nothing, left, right, tau),
    }
    metrics: dict[str, float] = {"num_pairs": len(same)}
    for signal, score in scores.items():
        metrics |= {key_for(key, signal): value for key, value in judge_pairs(score, same, sides).items()}
    return metrics


def draw_pairs(
    labels: np.ndarray, groups: np.ndarray | None, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As many pairs of one class, and of two groups, as of two classes, `number` at most.

    Args:
        labels: `(N,)` integers from 0.
        groups: `(N,)` integers from 0, or None.
        number: Pairs to draw, with replacement.
        rng: The source of the draws.

    Returns:
        Positions of the left and the right images, and whether they are of one class, each `(P,)`.

    Example:
        >>> left, right, same = draw_pairs(np.array([0, 0, 1, 1]), None, 8, np.random.default_rng(0))
        >>> len(left), int(same.sum()), bool((left != right).all())
        (8, 4, True)
    """
    order = np.argsort(labels, kind="stable")
    size = np.bincount(labels) if len(labels) else np.zeros(0, dtype=np.int64)
    start = np.cumsum(size) - size
    half = number // 2
    alike = [np.zeros((0, 2), dtype=np.int64)]
    unlike = [np.zeros((0, 2), dtype=np.int64)]
    for _ in range(20):  # what is drawn in vain, such as a picture with itself, is drawn again
        if not len(labels):
            break
        left = rng.integers(len(labels), size=2 * half)
        own = labels[left]
        right = order[start[own] + rng.integers(size[own])]
        wanted = (left != right) if groups is None else groups[left] != groups[right]
        alike.append(np.stack([left, right], axis=1)[wanted])
        other = rng.integers(len(labels), size=2 * half)
        unlike.append(np.stack([left, other], axis=1)[labels[left] != labels[other]])
        if all(sum(map(len, part)) >= half for part in (alike, unlike)):
            break
    pairs = [np.concatenate(part)[:half] for part in (alike, unlike)]
    both = min(map(len, pairs))
    joined = np.concatenate([part[:both] for part in pairs])
    return joined[:, 0], joined[:, 1], np.arange(2 * both) < both


def judge_pairs(score: np.ndarray, same: np.ndarray, halves: np.ndarray) -> dict[str, float]:
    """What a score of pairs is worth.

    Args:
        score: `(P,)` larger for images that are more alike.
        same: `(P,)` whether they are of one class.
        halves: `(P,)` 0 or 1: on the pairs of one half it is learnt what the score means as a probability (a logistic
            curve, Platt 1999), and this is judged on the other half.

    Returns:
        `pair_auroc`, the chance that a pair of one class has the larger score; `pair_eer`, the error where as many
        pairs of one class are missed as pairs of two are accepted; `pair_brier`, the mean squared error of the
        probability; `pair_ece`, its expected calibration error over 15 bins.

    Example:
        >>> same = np.tile([True, True, False, False], 50)
        >>> judged = judge_pairs(np.tile([4.0, 3.0, 2.0, 1.0], 50), same, np.arange(200) % 8 // 4)
        >>> judged["pair_auroc"], judged["pair_eer"], judged["pair_brier"] < 0.05
        (1.0, 0.0, True)
    """
    wrong, right, _ = roc_curve(same, score)
    at = int(np.argmax(wrong >= 1 - right))
    probability = np.empty(len(score))
    for half in (0, 1):
        learnt, judged = halves != half, halves == half
        centre, spread = score[learnt].mean(), max(float(score[learnt].std()), 1e-12)
        curve = LogisticRegression().fit((score[learnt, None] - centre) / spread, same[learnt])
        probability[judged] = curve.predict_proba((score[judged, None] - centre) / spread)[:, 1]
    return {
        "pair_auroc": auroc(score, same),
        "pair_eer": float(_crossing(wrong, 1 - right, at)),
        "pair_brier": float(brier_score_loss(same, probability)),
        "pair_ece": calibration_error(probability, same),
    }


def _crossing(accepted: np.ndarray, missed: np.ndarray, at: int) -> float:
    """Where the line from the point before `at` to that point has equal rates."""
    if at == 0:
        return float(accepted[0])
    before, after = missed[at - 1] - accepted[at - 1], accepted[at] - missed[at]
    share = before / (before + after)
    return float(accepted[at - 1] + share * (accepted[at] - accepted[at - 1]))


__all__ = ["draw_pairs", "judge_pairs", "pair_metrics"]
