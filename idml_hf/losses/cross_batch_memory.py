"""Cross-batch memory: the embeddings of earlier batches as further images to compare with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from idml_hf.reference_memory import oldest_slots

# No label that an image could have: comparisons with an empty slot are neither positive nor negative.
EMPTY = torch.iinfo(torch.int64).min


class CrossBatchMemory(nn.Module):
    """A queue of the last `size` images' embeddings, without gradient.

    It is part of the state dict, so that a resumed training goes on bit by bit.

    References:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.
    """

    semantic: Tensor
    uncertainty: Tensor | None
    labels: Tensor
    position: Tensor

    def __init__(self, size: int, embedding_dim: int, uncertainty_dim: int | None) -> None:
        super().__init__()
        self.register_buffer("semantic", torch.zeros(size, embedding_dim))
        self.register_buffer("uncertainty", None if uncertainty_dim is None else torch.zeros(size, uncertainty_dim))
        self.register_buffer("labels", torch.full((size,), EMPTY))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def reset(self) -> None:
        """Forget everything."""
        for buffer in self.buffers():
            buffer.zero_()
        self.labels.fill_(EMPTY)

    def extend(
        self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The batch followed by what is remembered: shapes (B + size, d), (B + size, d_u), (B + size,)."""
        if self.uncertainty is not None:
            if uncertainty is None:
                uncertainty = semantic.new_zeros(len(semantic), self.uncertainty.shape[1])
            elif uncertainty.shape[1] != self.uncertainty.shape[1]:
                expected, given = self.uncertainty.shape[1], uncertainty.shape[1]
                raise ValueError(f"the memory was built for uncertainty_dim={expected} embeddings; got {given} values")
            uncertainty = torch.cat((uncertainty, self.uncertainty.to(uncertainty)))
        return torch.cat((semantic, self.semantic.to(semantic))), uncertainty, torch.cat((labels, self.labels))

    @torch.no_grad()
    def remember(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor) -> None:
        """Put a batch in the place of the oldest images."""
        slots = oldest_slots(self.position, len(labels), len(self.labels))
        count = len(slots)
        self.semantic[slots] = semantic[-count:].to(self.semantic)
        if self.uncertainty is not None:
            self.uncertainty[slots] = 0.0 if uncertainty is None else uncertainty[-count:].to(self.uncertainty)
        self.labels[slots] = labels[-count:]
