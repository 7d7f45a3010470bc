"""Mixup and CutMix of training batches, the same again whenever a run is resumed."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from idml_hf.data import derive_seed, seeded

MIXES = ("none", "mixup", "cutmix")


class BatchMixing:
    """Mixes each image of a batch, and its label, with another (torchvision's `MixUp` and `CutMix`).

    Args:
        mix: `"mixup"` (Zhang et al., 2018) or `"cutmix"` (Yun et al., 2019).
        num_classes: C.
        alpha: lam ~ Beta(alpha, alpha), one for each batch.
        probability: Share of the batches that are mixed.

    Example:
        >>> mixing = BatchMixing("mixup", num_classes=3)
        >>> images, labels = mixing(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]), 0)
        >>> labels.shape, labels.sum(1).round(decimals=5)
        (torch.Size([4, 3]), tensor([1., 1., 1., 1.]))
    """

    def __init__(self, mix: str, num_classes: int, alpha: float = 1.0, probability: float = 1.0) -> None:
        self.transform = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[mix](alpha=alpha, num_classes=num_classes)
        self.probability = probability

    def __call__(self, images: Tensor, labels: Tensor, *place: int) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: `(B, 3, H, W)`, floating point.
            labels: `(B,)` classes.
            place: Integers that say where in the run this is, such as (seed, step): all draws depend on them alone.

        Returns:
            the images and the class probabilities `(B, C)`; both as they were where the draw leaves the batch alone.
        """
        with seeded(derive_seed(*place)):
            if torch.rand(()).item() >= self.probability:
                return images, labels
            return self.transform(images, labels)


__all__ = ["MIXES", "BatchMixing"]
