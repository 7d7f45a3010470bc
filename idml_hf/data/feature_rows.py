"""Stored features of images, as a training set of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .train_images import Draw


class FeatureRows(Dataset):
    """Map-style data set of `{"pixel_values": vector, "labels": int, "groups": int}`.

    Without groups, each image is a group of its own. A [`Draw`] is taken for its index: nothing is augmented.

    Args:
        features: `(N, F)` array of any float type; may be mapped from a file.
        labels: Integers `(N,)`.
        groups: Integers `(N,)`, or None.

    Example:
        >>> rows = FeatureRows(np.eye(3, dtype=np.float16), np.array([0, 0, 1]))
        >>> rows[2]["pixel_values"].tolist(), rows[2]["labels"], rows[2]["groups"]
        ([0.0, 0.0, 1.0], 1, 2)
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> None:
        self.features = features
        self.labels = labels
        self.groups = np.arange(len(labels)) if groups is None else groups

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | Draw) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[int | Draw]) -> list[dict[str, Any]]:
        rows = [key.index if isinstance(key, Draw) else key for key in keys]
        vectors = torch.from_numpy(np.asarray(self.features[rows], dtype=np.float32))
        return [
            {"pixel_values": vector, "labels": int(self.labels[row]), "groups": int(self.groups[row])}
            for row, vector in zip(rows, vectors, strict=True)
        ]


__all__ = ["FeatureRows"]
