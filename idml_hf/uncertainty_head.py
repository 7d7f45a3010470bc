"""The head that says how uncertain an image is, and what it reads.

This file travels with a checkpoint as remote code.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .feature_statistics import READ_NORM
from .similarity import at_least_float32

# hidden layer of the "stages" head
HIDDEN_FEATURES = 256
# root mean square of an activation on normally distributed values of unit variance
_RMS = {"relu": 0.5**0.5, "softplus": 0.96}


class UncertaintyHead(nn.Module):
    """One or two layers and an activation that turn features into the uncertainty embedding.

    Under `"budget"` the softplus is divided by the batch's mean norm and multiplied by `level`, so the mean norm is
    always `level`: the loss can say which image is uncertain, but cannot win by making nothing uncertain. Inference
    divides by the running mean, kept in fp32 in the checkpoint and the same on all processes.

    Args:
        in_features: Length of what it reads.
        out_features: Length d_u of the uncertainty embedding.
        activation: `"budget"`, `"softplus"`, `"relu"` or `"l2"`.
        level: Mean norm under `"budget"`.
        momentum: Weight of the newest batch in the running mean.
        hidden_features: Length of the hidden layer, or None for none.
        start: Norm of a fresh head's result under `"relu"` and `"softplus"`, for what `normalised` and
            `with_statistics` return; None leaves it to how the layer is drawn, as the first edition did.
    """

    running_norm: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str,
        level: float = 1.0,
        momentum: float = 0.1,
        hidden_features: int | None = None,
        start: float | None = None,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_features, hidden_features) if hidden_features else None
        self.linear = nn.Linear(hidden_features or in_features, out_features)
        self.activation = activation
        self.level = level
        self.momentum = momentum
        self.start = start
        # A factor, and no smaller weights: one step of Adam would carry those across the whole of the ReLU's range.
        rms = _RMS.get(activation)
        self.scale = 1.0 if start is None or rms is None else start / (rms * out_features**0.5)
        # the norm of softplus(0), which is close to that of fresh heads
        self.initial_norm = 0.6931 * out_features**0.5
        self.register_buffer("running_norm", torch.tensor(self.initial_norm, dtype=torch.float32))

    def reset_parameters(self) -> None:
        """Draw the layers, except for what was loaded."""
        init.kaiming_normal_(self.linear.weight, mode="fan_out")
        if self.start is not None and self.activation in _RMS:
            # unit variance; a ReLU after a layer drawn from U(-1, 1) / sqrt(fan in) leaves a sixth of the square
            square = READ_NORM**2 if self.hidden is None else self.linear.in_features / 6
            init.normal_(self.linear.weight, std=square**-0.5)
        init.zeros_(self.linear.bias)
        if self.hidden is not None:
            init.kaiming_uniform_(self.hidden.weight, a=5**0.5)
            init.zeros_(self.hidden.bias)
        init.constant_(self.running_norm, self.initial_norm)

    def activate(self, features: Tensor) -> Tensor:
        """Uncertainty embeddings before the budget: those of one batch differ from the result by one factor."""
        if self.hidden is not None:
            features = F.relu(self.hidden(features))
        x = at_least_float32(self.linear(features))
        if self.activation == "l2":
            return F.normalize(x, dim=-1)
        x = F.relu(x) if self.activation == "relu" else F.softplus(x)
        return x if self.scale == 1.0 else x * self.scale

    def forward(self, features: Tensor) -> Tensor:
        """Map features `(B, in_features)` to uncertainty embeddings `(B, out_features)`."""
        x = self.activate(features)
        if self.activation != "budget":
            return x
        if self.training:
            mean_norm = _mean_over_processes(torch.linalg.vector_norm(x, dim=-1).sum(), len(x))
            with torch.no_grad():
                self.running_norm.lerp_(mean_norm.to(self.running_norm.dtype), self.momentum)
        else:
            mean_norm = self.running_norm.to(x.dtype)
        return x * (self.level / mean_norm)


def _mean_over_processes(local_sum: Tensor, local_count: int) -> Tensor:
    """Mean over the joined batch of all processes, with gradient."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return local_sum / local_count
    from torch.distributed.nn.functional import all_reduce

    total = all_reduce(torch.stack([local_sum, local_sum.new_tensor(float(local_count))]))
    return total[0] / total[1]


__all__ = ["HIDDEN_FEATURES", "UncertaintyHead"]
