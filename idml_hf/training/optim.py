"""Parameter groups and the step schedule."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, StepLR


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, decayed: Iterable[str], multipliers: dict[str, float]
) -> list[dict]:
    """Group parameters by learning rate and weight decay.

    Frozen parameters are included: an optimizer passes over parameters without a gradient, and those of a trunk
    frozen for the first epochs must be there once it thaws.

    Args:
        model: The model.
        learning_rate: Base learning rate.
        weight_decay: Weight decay of the parameters named in `decayed`.
        decayed: Names of the parameters that decay.
        multipliers: Regular expression on a name -> factor on the learning rate; the first that matches counts.
    """
    patterns = [(re.compile(pattern), factor) for pattern, factor in multipliers.items()]
    decayed = set(decayed)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = next((f for pattern, f in patterns if pattern.search(name)), 1.0)
        groups.setdefault((factor, name in decayed), []).append(parameter)
    return [
        {"params": params, "lr": learning_rate * factor, "weight_decay": weight_decay if decays else 0.0}
        for (factor, decays), params in groups.items()
    ]


def step_schedule(optimizer: Optimizer, epochs: list[int], gamma: float, steps_per_epoch: int) -> LRScheduler:
    """Let the learning rate fall by `gamma`: every k epochs for `[k]`, or after each of several epochs.

    Raises:
        ValueError: if an epoch is not positive.
    """
    if min(epochs) < 1:
        raise ValueError(f"lr_step_epochs must be positive, not {epochs}")
    if len(epochs) == 1:
        return StepLR(optimizer, step_size=epochs[0] * steps_per_epoch, gamma=gamma)
    return MultiStepLR(optimizer, milestones=[e * steps_per_epoch for e in epochs], gamma=gamma)


__all__ = ["parameter_groups", "step_schedule"]
