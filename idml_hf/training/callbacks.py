"""Callbacks of the IDML trainer."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.utils import logging

from idml_hf.configuration_idml import IDMLConfig
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


def innermost(model: Any) -> Any:
    """The model of this package in another one, such as PEFT's, that wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class _BesideResults:
    """Sends the lines of a log, which transformers prints among results, to the standard error."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            super().on_log(*args, **kwargs)  # type: ignore[misc]


class ProgressBeside(_BesideResults, ProgressCallback):
    """The progress bar of transformers."""


class LogBeside(_BesideResults, PrinterCallback):
    """The log of transformers where there is no progress bar."""


class FrozenTrunk(TrainerCallback):
    """Trains only the heads and the loss for the first epochs.

    What of the trunk was frozen before stays so afterwards.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._model: Any = None
        self._trainable: list[nn.Parameter] = []

    def on_epoch_begin(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: IDMLPreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        """Freeze the trunk, or let it go."""
        if model is not self._model:
            self._model = model
            self._trainable = [p for p in innermost(model).trunk.parameters() if p.requires_grad]
        for parameter in self._trainable:
            parameter.requires_grad_(int(state.epoch or 0) >= self.epochs)


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

    The sums stay on the device until the trainer logs. When the spread (standard deviation over mean of ||u||) over a
    whole epoch is below the threshold, uncertainty has collapsed to a constant and the loss has become the plain one.
    """

    def __init__(self) -> None:
        self._batches: list[Tensor] = []
        self._epoch: list[Tensor] = []
        self._gradient: Tensor | None = None
        self._warned = False

    def observe(self, uncertainty: Tensor) -> None:
        """Take note of a training batch's uncertainty `(B,)`."""
        uncertainty = uncertainty.detach().float()
        self._batches.append(uncertainty)
        self._epoch.append(torch.stack([uncertainty.sum(), uncertainty.square().sum()]).double())
        self._epoch[-1] /= len(uncertainty)

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
        gradient = innermost(model).base_model.uncertainty_head.linear.weight.grad
        self._gradient = None if gradient is None else torch.linalg.vector_norm(gradient)

    def on_epoch_end(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: IDMLPreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        """Say so once if the uncertainty was the same for all images of the epoch."""
        if not self._epoch:
            return
        mean, square = torch.stack(self._epoch).mean(0).tolist()
        self._epoch.clear()
        spread = max(0.0, square - mean**2) ** 0.5 / max(mean, 1e-12)
        config = innermost(model).config
        is_trained = config.form != "none" or config.ranks_uncertainty
        if is_trained and spread < args.collapse_threshold and not self._warned:
            self._warned = True
            logger.warning(
                f"The uncertainty has collapsed: over epoch {round(state.epoch or 0)} its spread over images was "
                f"{spread:.2g} (below {args.collapse_threshold:g}), its mean norm {mean:.3g}. The loss now acts like "
                f"the plain one. {_advice(config, args)}"
            )

    def logs(self) -> dict[str, float]:
        """The figures since the last call, for the trainer's log."""
        if not self._batches:
            return {}
        u = torch.cat(self._batches)
        self._batches.clear()
        mean, spread = u.mean().item(), (u.std(correction=0) / u.mean().clamp_min(1e-12)).item()
        gradient = 0.0 if self._gradient is None else self._gradient.item()
        return {"uncertainty_mean": mean, "uncertainty_spread": spread, "uncertainty_grad_norm": gradient}


def _advice(config: IDMLConfig, args: IDMLTrainingArguments) -> str:
    """What keeps the uncertainty from collapsing and is not done."""
    if config.uncertainty_activation == "l2":
        return 'uncertainty_activation="l2" makes it 1 for every image; another activation can tell images apart.'
    if config.uncertainty_activation != "budget":
        return 'uncertainty_activation="budget" prevents it from being switched off.'
    if not config.ranks_uncertainty:
        return "uncertainty_ranking above 0 trains it to order images by how hard they are."
    if not args.degraded_share:
        return "degraded_share above 0 gives it images to tell apart."
    return "A smaller learning rate keeps its head alive."


__all__ = [
    "EpochOfSampler",
    "FrozenTrunk",
    "LogBeside",
    "ProgressBeside",
    "UncertaintyMonitor",
    "ValueClipping",
    "innermost",
]
