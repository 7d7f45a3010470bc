"""The Mixup term of the paper's training loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mix_batch(
    pixel_values: Tensor, labels: Tensor, alpha: float, seed: int, step: int, micro_step: int = 0, process: int = 0
) -> dict[str, Tensor]:
    """Mix each image with another of the batch (Zhang et al., 2018).

    The draws depend on the integers alone, so a resumed run mixes the same. lam is the same on all processes, since
    the loss is computed over the joined batch; the partners are each process's own.

    Args:
        pixel_values: `(B, 3, H, W)`.
        labels: `(B,)`.
        alpha: lam ~ Beta(alpha, alpha), > 0.
        seed: Seed of the run.
        step: Number of the optimizer step.
        micro_step: Number of the batch within that step, under gradient accumulation.
        process: Rank of this process.

    Returns:
        `mixed_pixel_values`, `mixed_labels` (the partners' classes) and `mix_ratio` (lam), as
        [`IDMLForMetricLearning.forward`] takes them.

    Example:
        >>> import torch
        >>> batch = mix_batch(torch.rand(4, 3, 8, 8), torch.arange(4), alpha=1.0, seed=0, step=0)
        >>> batch["mixed_pixel_values"].shape
        torch.Size([4, 3, 8, 8])
    """
    lam = float(np.random.default_rng((seed, step, micro_step)).beta(alpha, alpha))
    order = np.random.default_rng((seed, step, micro_step, 1 + process)).permutation(len(labels))
    partner = torch.from_numpy(order).to(labels.device)
    return {
        "mixed_pixel_values": torch.lerp(pixel_values[partner], pixel_values, lam),
        "mixed_labels": labels[partner],
        "mix_ratio": torch.tensor(lam, device=labels.device),
    }


__all__ = ["mix_batch"]
