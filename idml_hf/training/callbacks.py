"""Callbacks of the IDML trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.utils import logging

from idml_hf.modeling_idml import IDMLPreTrainedModel

from .arguments import IDMLTrainingArguments
from .sampler import RandomBatchSampler

logger = logging.get_logger(__name__)


class EpochOfSampler(TrainerCallback):
    """Tells the batch sampler its epoch, also behind the wrappers of a distributed run resumed in mid-epoch."""

    def __init__(self, sampler: RandomBatchSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell the sampler."""
        self.sampler.set_epoch(int(state.epoch or 0))


class FrozenTrunk(TrainerCallback):
    """Trains only the heads and the loss for the first epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_begin(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: IDMLPreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        """Freeze the trunk, or let it go."""
        assert model is not None
        model.trunk.requires_grad_(int(state.epoch or 0) >= self.epochs)


class ValueClipping(TrainerCallback):
    """Clips each gradient value; runs when gradients are unscaled and all there."""

    def __init__(self, value: float) -> None:
        self.value = value

    def on_pre_optimizer_step(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Clip the gradients."""
        assert model is not None
        torch.nn.utils.clip_grad_value_(model.parameters(), self.value)


class UncertaintyMonitor(TrainerCallback):
    """Keeps the uncertainty under watch: its mean, its spread, and the gradient that reaches its head.

    The sums stay on the device until the trainer logs. When the spread (standard deviation over mean of ||u||) is
    below the threshold, uncertainty has collapsed to a constant and the loss has become the plain one.
    """

    def __init__(self) -> None:
        self._batches: list[Tensor] = []
        self._gradient: Tensor | None = None
        self._warned = False

    def observe(self, uncertainty: Tensor) -> None:
        """Take note of a training batch's uncertainty `(B,)`."""
        self._batches.append(uncertainty.detach())

    def on_pre_optimizer_step(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: IDMLPreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        """Take note of the gradient."""
        assert model is not None
        gradient = model.base_model.uncertainty_head.linear.weight.grad
        self._gradient = None if gradient is None else torch.linalg.vector_norm(gradient)

    def logs(self, args: IDMLTrainingArguments) -> dict[str, float]:
        """The figures since the last call, for the trainer's log."""
        if not self._batches:
            return {}
        u = torch.cat(self._batches).float()
        self._batches.clear()
        mean, spread = u.mean().item(), (u.std(correction=0) / u.mean().clamp_min(1e-12)).item()
        gradient = 0.0 if self._gradient is None else self._gradient.item()
        if spread < args.collapse_threshold and not self._warned:
            self._warned = True
            logger.warning(
                f"The uncertainty has collapsed: its spread over images is {spread:.2g} (below "
                f"{args.collapse_threshold:g}), mean norm {mean:.3g}. The loss now acts like the plain one; "
                'uncertainty_activation="budget" prevents it.'
            )
        return {"uncertainty_mean": mean, "uncertainty_spread": spread, "uncertainty_grad_norm": gradient}


__all__ = ["EpochOfSampler", "FrozenTrunk", "UncertaintyMonitor", "ValueClipping"]
