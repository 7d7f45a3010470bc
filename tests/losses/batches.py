"""Batches of labelled embeddings for the tests of the losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

KINDS = ("random", "p_x_k", "one_class", "no_positives", "single")


def labels_of(kind: str, size: int) -> Tensor:
    if kind == "random":
        return torch.randint(0, max(2, size // 4), (size,))
    if kind == "p_x_k":
        return torch.arange(size) // 4
    if kind == "one_class":
        return torch.zeros(size, dtype=torch.int64)
    return torch.arange(size)


def batch(kind: str, size: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Semantic embeddings around class centres, near enough that every loss is active; uncertainties; labels."""
    if kind == "single":
        size = 1
    labels = labels_of(kind, size)
    centres = torch.randn(int(labels.max()) + 1, d, dtype=torch.float64)
    semantic = normalize(centres[labels] + 2.0 * torch.randn(size, d, dtype=torch.float64))
    uncertainty = normalize(softplus(torch.randn(size, d, dtype=torch.float64)))
    return semantic.to(dtype).requires_grad_(), uncertainty.to(dtype).requires_grad_(), labels
