"""How much a clean image alone can tell of its luck: the R-AUROC of a probe that was told half of the answers.

Whether the nearest image of a query is right depends on the query and on a gallery that an uncertainty does not see. A
probe that learns, from the answers of half of the classes, which embeddings go wrong, and is judged on the other half,
shows what is left to be known. Where it does no better than chance, no uncertainty of an image alone can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from .uncertainty import auroc

_PENALTIES = np.array([0.1, 0.3, 1.0, 3.0, 10.0, 30.0])  # an example
_SPREAD = 1.96  # standard deviations to either side hold 95 % of a normal distribution


def ceiling_metrics(
    features: Any, uncertainty: Any, correct: Any, labels: Any, *, splits: int = 5, seed: int = 0
) -> dict[str, float]:
    """The ceiling of R-AUROC, with its interval, and the share of the way to it that the uncertainty goes.

    Args:
        features: `(N, f)` all that is known of each query without a gallery, its embedding first of all.
        uncertainty: `(N,)` one number a query, which the probe sees as well.
        correct: `(N,)` whether the nearest image is right.
        labels: `(N,)` classes. The probe is trained on half of them and judged on the others.
        splits: How often the classes are halved, each half being learnt from once.
        seed: Seed of the splits.

    Returns:
        `r_auroc_ceiling`, the mean over splits; `r_auroc_ceiling_low` and `r_auroc_ceiling_high`, the mean with 1.96
        standard deviations over splits to either side; `r_auroc_ceiling_reached`, the share of the way from chance
        (0.5) to the ceiling that the uncertainty goes. NaN where the answers of a half are all alike, or the ceiling
        is no better than chance.

    Note:
        The probe is a ridge regression of the answers, its penalty chosen on classes within the half it is told.
        Another probe may know more: this is what is easily read from an embedding, no bound on what is in the picture.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, labels = rng.standard_normal((400, 3)), np.arange(400) % 40
        >>> right = x[:, 0] + 0.1 * rng.standard_normal(400) > 0
        >>> ceiling = ceiling_metrics(x, rng.random(400), right, labels)
        >>> ceiling["r_auroc_ceiling"] > 0.95, ceiling["r_auroc_ceiling_reached"] < 0.2
        (True, True)
    """
    features, uncertainty = np.asarray(features, dtype=np.float64), np.asarray(uncertainty, dtype=np.float64)
    correct, classes = np.asarray(correct, dtype=bool), np.unique(np.asarray(labels), return_inverse=True)[1]
    inputs = np.column_stack([features, uncertainty])
    inputs = (inputs - inputs.mean(0)) / np.maximum(inputs.std(0), 1e-12)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        first, second = _halves(classes, rng)
        found += [_probe(inputs, correct, classes, *halves, rng) for halves in ((first, second), (second, first))]
    defined = np.array([value for value in found if not np.isnan(value)])
    if not len(defined):
        keys = ("r_auroc_ceiling", "r_auroc_ceiling_low", "r_auroc_ceiling_high", "r_auroc_ceiling_reached")
        return dict.fromkeys(keys, float("nan"))
    ceiling, spread = float(defined.mean()), float(_SPREAD * defined.std())
    own = auroc(-uncertainty, correct)
    return {
        "r_auroc_ceiling": ceiling,
        "r_auroc_ceiling_low": ceiling - spread,
        "r_auroc_ceiling_high": ceiling + spread,
        "r_auroc_ceiling_reached": (own - 0.5) / (ceiling - 0.5) if ceiling > 0.5 else float("nan"),
    }


def _probe(
    inputs: np.ndarray,
    correct: np.ndarray,
    classes: np.ndarray,
    told: np.ndarray,
    judged: np.ndarray,
    rng: np.random.Generator,
) -> float:
    """R-AUROC on the queries `judged` of a probe that was told the answers of those `told`."""
    if _all_alike(correct[told]) or _all_alike(correct[judged]):
        return float("nan")
    quality = np.zeros(len(_PENALTIES))
    first, second = (told[half] for half in _halves(classes[told], rng))
    for learnt, checked in ((first, second), (second, first)):
        if not (_all_alike(correct[learnt]) or _all_alike(correct[checked])):
            scores = _fit(inputs[learnt], correct[learnt], _PENALTIES).predict(inputs[checked])
            quality += [auroc(column, correct[checked]) for column in scores.T]
    probe = _fit(inputs[told], correct[told], _PENALTIES[[quality.argmax()]])
    return auroc(probe.predict(inputs[judged]).ravel(), correct[judged])


def _fit(inputs: np.ndarray, correct: np.ndarray, penalties: np.ndarray) -> Ridge:
    """One regression a penalty."""
    answers = np.repeat(correct[:, None].astype(np.float64), len(penalties), axis=1)
    return Ridge(alpha=penalties * len(inputs), solver="cholesky").fit(inputs, answers)


def _halves(classes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the items of a random half of the classes, and of the others."""
    present = np.unique(classes)
    first = np.isin(classes, rng.permutation(present)[: len(present) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)


def _all_alike(correct: np.ndarray) -> bool:
    return bool(correct.all() or not correct.any())


__all__ = ["ceiling_metrics"]
