"""Images whose class is their colour, and what stands for a model that sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from idml_hf.embedding import Embeddings


class ColoredImages:
    """Images whose class is their colour; `labels` and `groups` as the data part has them."""

    group_column = "maker"

    def __init__(self, number: int = 40) -> None:
        rng = np.random.default_rng(0)
        self.labels, self.groups = np.arange(number) % 4, np.arange(number) // 4 % 2
        base = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [160, 160, 40]])[self.labels]
        texture = rng.normal(0, 40, (number, 24, 24, 1)) + rng.normal(0, 20, (number, 1, 1, 3))
        self.pixels = (base[:, None, None] + texture).clip(0, 255).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


def mean_colors(images: Any) -> Embeddings:
    """Stands for a model: the mean colour is the embedding, missing texture is the uncertainty."""
    pixels = [np.asarray(images[i], dtype=np.float32) / 255 for i in range(len(images))]
    color = np.stack([image.mean((0, 1)) for image in pixels]) - 0.3
    uncertainty = np.array([1 / (0.01 + image.std((0, 1)).mean()) for image in pixels], dtype=np.float32)
    norm = np.linalg.norm(color, axis=1)
    return Embeddings(color / norm[:, None], uncertainty[:, None], uncertainty, norm)
