"""One of two processes that train on halves of a batch; what it ends with is written for the test to compare.

Run as ``python two_processes.py RANK FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus
from torch.nn.parallel import DistributedDataParallel

from idml_hf.losses import LOSSES, PROXY_LOSSES, build_loss

CASES = [(name, form) for name, loss in LOSSES.items() for form in loss.forms]
STEPS = 3
# Halves of different sizes: the last batch of an epoch may end so.
SIZES = (14, 10)


class Model(nn.Module):
    """Two heads and a loss."""

    def __init__(self, name: str, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.semantic = nn.Linear(16, 8)
        self.uncertainty = nn.Linear(16, 6)
        memory = {} if name in PROXY_LOSSES else {"memory_size": 30, "uncertainty_dim": 6}
        self.loss = build_loss(name, 6, 8, form, **memory)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(normalize(self.semantic(images)), softplus(self.uncertainty(images)), labels)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(sum(SIZES), 16, generator=generator), torch.randint(0, 6, (sum(SIZES),), generator=generator))
        for _ in range(STEPS)
    ]


def train(name: str, form: str, rank: int | None) -> dict[str, Any]:
    """Losses, first gradients and final state of training on all images (rank None) or on those of one process."""
    model = Model(name, form)
    trained = model if rank is None else DistributedDataParallel(model, find_unused_parameters=True)
    # Processes draw differently from each other, so that only a shared draw can make them agree.
    torch.manual_seed(5 if rank is None else 5 + rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    mine = slice(None) if rank is None else (slice(0, SIZES[0]), slice(SIZES[0], None))[rank]
    values: list[Tensor] = []
    gradients: dict[str, Tensor] = {}
    for images, labels in batches():
        optimizer.zero_grad()
        value = trained(images[mine], labels[mine])
        value.backward()
        values.append(value.detach())
        gradients = gradients or {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
    return {"values": torch.stack(values), "gradients": gradients, "state": dict(model.state_dict())}


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save({case: train(*case, rank) for case in CASES}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
