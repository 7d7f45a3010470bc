"""Mixed images: the Mixup term of the paper's retrieval loss, and Mixup and CutMix of a classifier's batches.

All draws depend on where in the run they are made alone, so that a resumed run mixes the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from idml_hf.data import derive_seed, generator, seeded

MIXES = ("none", "mixup", "cutmix")


def mix_batch(
    pixel_values: Tensor, labels: Tensor, alpha: float, seed: int, step: int, micro_step: int = 0, process: int = 0
) -> dict[str, Tensor]:
    """Mix each image with another of the batch (Zhang et al., 2018).

    lam is the same on all processes, since the loss is computed over the joined batch; the partners are each process's
    own.

    Args:
        pixel_values: `(B, 3, H, W)`.
        labels: `(B,)`.
        alpha: lam ~ Beta(alpha, alpha), > 0.
        seed: Seed of the run.
        step: Number of the optimizer step.
        micro_step: Number of the batch within that step, under gradient accumulation.
        process: Rank of this process.

    Returns:
        `mixed_pixel_values`, `mixed_classes` (the partners' classes) and `mix_ratio` (lam), as
        [`IDMLForMetricLearning.forward`] takes them.

    Example:
        >>> import torch
        >>> batch = mix_batch(torch.rand(4, 3, 8, 8), torch.arange(4), alpha=1.0, seed=0, step=0)
        >>> batch["mixed_pixel_values"].shape
        torch.Size([4, 3, 8, 8])
    """
    lam = float(generator(seed, step, micro_step).beta(alpha, alpha))
    order = generator(seed, step, micro_step, 1 + process).permutation(len(labels))
    partner = torch.from_numpy(order).to(labels.device)
    return {
        "mixed_pixel_values": torch.lerp(pixel_values[partner], pixel_values, lam),
        "mixed_classes": labels[partner],
        "mix_ratio": torch.tensor(lam, device=labels.device),
    }


class BatchMixing:
    """Mixes each image of a batch, and its label, with another (torchvision's `MixUp` and `CutMix`).

    Args:
        mix: `"mixup"` (Zhang et al., 2018) or `"cutmix"` (Yun et al., 2019).
        num_classes: C.
        alpha: lam ~ Beta(alpha, alpha), one for each batch.
        probability: Share of the batches that are mixed.

    Example:
        >>> mixing = BatchMixing("mixup", num_classes=3, alpha=1.0, probability=1.0)
        >>> images, labels = mixing(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]), 0)
        >>> labels.shape, labels.sum(1).round(decimals=5)
        (torch.Size([4, 3]), tensor([1., 1., 1., 1.]))
    """

    def __init__(self, mix: str, num_classes: int, alpha: float, probability: float) -> None:
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


__all__ = ["MIXES", "BatchMixing", "mix_batch"]
