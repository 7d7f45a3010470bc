"""What training remembers of past images, and what that tells about a new one.

A new image is of another class than all of the training images, so none of them matches it. What it has in common with
the nearest it would also have in common with false matches: a direction in which its similarities mean little, and a
measure of how easily it is mistaken. This file travels with a checkpoint as remote code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .similarity import full_precision

# which part of the remembered images counts as near
NEAR_SHARE = 0.1
EMPTY = torch.iinfo(torch.int64).min
"""No label that an image could have: what an empty slot holds in place of one."""


class Slots(NamedTuple):
    """Where the last images of a batch go in a queue."""

    places: Tensor
    """Rows of the queue, int64, shape (n,), n at most its size."""
    sound: Tensor
    """Whether the batch may be remembered, a boolean scalar: all its values are finite."""


class PastImages(nn.Module):
    """A queue of what is kept of the last `size` images, in columns, without gradient.

    It is part of the state dict, so that a resumed training goes on bit by bit. A batch with a value that is not
    finite is not taken in: the step it belongs to is refused as well, and the weights stay as they were.

    Args:
        size: Number of images M.
        counter: Name of the buffer that counts the images ever taken in; None for a queue that follows another one.
    """

    def __init__(self, size: int, counter: str | None = None) -> None:
        super().__init__()
        self.size = size
        self.counter = counter
        self.fills: dict[str, int] = {}
        if counter is not None:
            self.register_buffer(counter, torch.zeros((), dtype=torch.int64))

    def add_vectors(self, name: str, width: int) -> None:
        """Add a column of vectors, shape (M, width), 0 where there is no image."""
        self.register_buffer(name, torch.zeros(self.size, width, dtype=full_precision()))

    def add_numbers(self, name: str) -> None:
        """Add a column of integers, shape (M,), `EMPTY` where there is no image."""
        self.fills[name] = EMPTY
        self.register_buffer(name, torch.full((self.size,), EMPTY))

    def reset_parameters(self) -> None:
        """Start empty, except for what was loaded."""
        for name, buffer in self.named_buffers(recurse=False):
            init.constant_(buffer, self.fills.get(name, 0))

    @torch.no_grad()
    def forget(self) -> None:
        """Become empty."""
        for name, buffer in self.named_buffers(recurse=False):
            buffer.fill_(self.fills.get(name, 0))

    @torch.no_grad()
    def next_slots(self, *rows: Tensor) -> Slots:
        """Move on past a batch, whose columns these are: the slots of its last images are those of the oldest."""
        assert self.counter is not None
        count = min(len(rows[0]), self.size)
        position = getattr(self, self.counter)
        sound = torch.stack([row.isfinite().all() for row in rows]).all()
        places = (position + torch.arange(count, device=position.device)) % self.size
        position += count * sound
        return Slots(places, sound)

    @torch.no_grad()
    def put(self, slots: Slots, **rows: Tensor) -> None:
        """Write the last rows of a batch, by the names of their columns."""
        for name, row in rows.items():
            column = getattr(self, name)
            new = row[-len(slots.places) :].to(column)
            # without reading `sound`, which would wait for the device
            column[slots.places] = torch.where(slots.sound, new, column[slots.places])


class ReferenceMemory(PastImages):
    """The semantic embeddings of the last `size` training images; part of the model that is shared.

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
        super().__init__(size, counter="seen")
        self.add_vectors("embeddings", embedding_dim)

    def remember(self, semantic: Tensor) -> Slots:
        """Put a batch, shape (B, d), in the place of the oldest images, and return the slots of its last images."""
        slots = self.next_slots(semantic)
        self.put(slots, embeddings=semantic)
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


__all__ = ["EMPTY", "PastImages", "ReferenceMemory", "Slots"]
