"""What a model remembers of its training images, and what that tells about a new one.

A new image is of another class than all of these, so none of them matches it. What it has in common with the nearest
it would also have in common with false matches: a direction in which its similarities mean little, and a measure of
how easily it is mistaken. This file travels with a checkpoint as remote code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

# which part of the remembered images counts as near
NEAR_SHARE = 0.1


class ReferenceMemory(nn.Module):
    """The semantic embeddings of the last `size` training images, without gradient.

    It is part of the state dict, so that a resumed training goes on bit by bit, and of the model that is shared.

    Args:
        size: Number of images M.
        embedding_dim: Length d of a semantic embedding.

    References:
        Hara et al., "Localized Centering: Reducing Hubness in Large-Sample Data", AAAI 2015: centring on the
        neighbours keeps images from being near to everything. Theirs are neighbours in the gallery, ours in the
        training data, so an embedding depends on its image alone.
    """

    embeddings: Tensor
    seen: Tensor

    def __init__(self, size: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.zeros(size, embedding_dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start empty, except for what was loaded."""
        init.zeros_(self.embeddings)
        init.zeros_(self.seen)

    @torch.no_grad()
    def forget(self) -> None:
        """Become empty."""
        self.embeddings.zero_()
        self.seen.zero_()

    @torch.no_grad()
    def remember(self, semantic: Tensor) -> Tensor:
        """Put a batch, shape (B, d), in the place of the oldest images, and return the slots of its last images."""
        slots = oldest_slots(self.seen, len(semantic), len(self.embeddings))
        self.embeddings[slots] = semantic[-len(slots) :].to(self.embeddings)
        return slots

    def forward(self, semantic: Tensor) -> tuple[Tensor, Tensor]:
        """Compare images with the tenth of the memory that is nearest to each.

        Args:
            semantic: Unit embeddings, shape (B, d), float32 or float64.

        Returns:
            The mean embedding m of those near, shape (B, d), and the density `exp(-mean ||s - e||^2)` there, shape
            (B,), in [exp(-4), 1]: how easily the image is mistaken. 0 and 1 while the memory is empty.

        Example:
            >>> import torch
            >>> memory = ReferenceMemory(size=2, embedding_dim=2)
            >>> slots = memory.remember(torch.eye(2))
            >>> memory(torch.tensor([[0.8, 0.6]]))
            (tensor([[1., 0.]]), tensor([0.6703]))
        """
        size = len(self.embeddings)
        with torch.autocast(semantic.device.type, enabled=False):
            embeddings = self.embeddings.to(semantic)
            filled = self.seen.clamp_max(size)
            empty = torch.arange(size, device=semantic.device) >= filled
            similarity = (semantic @ embeddings.mT).masked_fill(empty, -torch.inf)
            # the number of those near is a tensor, since reading it would wait for the device
            number = (filled * NEAR_SHARE).ceil().long().clamp_min(1)
            ranked = similarity.topk(math.ceil(size * NEAR_SHARE), dim=1).values
            near = (similarity >= ranked.index_select(1, (number - 1).view(1))).to(semantic)
            centre = near @ embeddings / near.sum(1, keepdim=True)
            density = torch.exp(2 * (centre * semantic).sum(1) - 2)
            return centre, torch.where(filled > 0, density, torch.ones_like(density))


def oldest_slots(position: Tensor, batch: int, size: int) -> Tensor:
    """Slots of a queue of `size` that the last images of a batch take, all that fit; moves `position` past them."""
    count = min(batch, size)
    slots = (position + torch.arange(count, device=position.device)) % size
    position += count
    return slots


__all__ = ["ReferenceMemory", "oldest_slots"]
