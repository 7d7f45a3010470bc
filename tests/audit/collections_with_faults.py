"""Collections with known faults."""

from __future__ import annotations

import numpy as np


def clusters(
    classes: int = 40, each: int = 8, width: int = 24, spread: float = 2.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Points of classes that overlap little, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = spread * rng.normal(size=(classes, width))
    return (centres[labels] + rng.normal(size=(len(labels), width))).astype(np.float32), labels


def mislabelled(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """The labels, some of them replaced by others at random."""
    rng = np.random.default_rng(seed)
    out, number = labels.copy(), labels.max() + 1
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    out[chosen] = (labels[chosen] + rng.integers(1, number, size=len(chosen))) % number
    return out
