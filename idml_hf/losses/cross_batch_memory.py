"""Cross-batch memory: the embeddings of earlier batches as further images to compare with."""

from __future__ import annotations

import torch
from torch import Tensor

from idml_hf.reference_memory import PastImages


class CrossBatchMemory(PastImages):
    """The last `size` images' embeddings and classes, as a loss between images compares with them.

    Args:
        size: number of images M.
        embedding_dim: values d of a semantic embedding.
        uncertainty_dim: values d_u of an uncertainty embedding; None for a metric that does not read them.

    References:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.
    """

    semantic: Tensor
    uncertainty: Tensor | None
    labels: Tensor
    position: Tensor

    def __init__(self, size: int, embedding_dim: int, uncertainty_dim: int | None) -> None:
        super().__init__(size, counter="position")
        self.add_vectors("semantic", embedding_dim)
        if uncertainty_dim is None:
            self.uncertainty = None
        else:
            self.add_vectors("uncertainty", uncertainty_dim)
        self.add_numbers("labels")

    def extend(
        self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The batch followed by what is remembered: shapes (B + M, d), (B + M, d_u), (B + M,)."""
        if self.uncertainty is not None:
            if uncertainty is None:
                uncertainty = semantic.new_zeros(len(semantic), self.uncertainty.shape[1])
            elif uncertainty.shape[1] != self.uncertainty.shape[1]:
                expected, given = self.uncertainty.shape[1], uncertainty.shape[1]
                raise ValueError(f"the memory was built for uncertainty_dim={expected} embeddings; got {given} values")
            uncertainty = torch.cat((uncertainty, self.uncertainty.to(uncertainty)))
        return torch.cat((semantic, self.semantic.to(semantic))), uncertainty, torch.cat((labels, self.labels))

    def remember(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor) -> None:
        """Put a batch in the place of the oldest images."""
        rows = {"semantic": semantic, "labels": labels}
        if self.uncertainty is not None:
            width = self.uncertainty.shape[1]
            rows["uncertainty"] = semantic.new_zeros(len(semantic), width) if uncertainty is None else uncertainty
        self.put(self.next_slots(*rows.values()), **rows)


__all__ = ["CrossBatchMemory"]
