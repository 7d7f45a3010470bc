"""The whole batch of all processes, on each of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad


def gather_batch(semantic: Tensor, uncertainty: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Concatenate the batches of all processes in the order of their ranks; the batches may differ in size.

    Gradients flow back to the process an embedding came from, summed over the losses of all processes. When each
    process computes the loss of the whole batch, the mean that DistributedDataParallel takes over processes is
    therefore exactly the gradient that one process would get.

    Args:
        semantic: this process's semantic embeddings, shape (b, d).
        uncertainty: its uncertainty embeddings, shape (b, d_u), or None on all processes.
        labels: its labels, shape (b,), int64.

    Returns:
        The three, of the whole batch; unchanged where there is one process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return semantic, uncertainty, labels
    from torch.distributed.nn.functional import all_gather  # not in every build of torch

    sizes = _gather_sizes(labels)
    missing = max(sizes) - len(labels)
    # One collective for both embeddings: the cost of gathering a batch is mostly latency.
    packed = semantic if uncertainty is None else torch.cat((semantic, uncertainty), 1)
    rows = torch.cat([part[:n] for part, n in zip(all_gather(pad(packed, (0, 0, 0, missing))), sizes, strict=True)])
    all_labels = [labels.new_empty(max(sizes)) for _ in sizes]
    dist.all_gather(all_labels, pad(labels, (0, missing)))
    labels = torch.cat([part[:n] for part, n in zip(all_labels, sizes, strict=True)])
    d = semantic.shape[1]
    return rows[:, :d], None if uncertainty is None else rows[:, d:], labels


def _gather_sizes(labels: Tensor) -> list[int]:
    sizes = labels.new_empty(dist.get_world_size())
    dist.all_gather(list(sizes.split(1)), labels.new_tensor([len(labels)]))
    return sizes.tolist()
