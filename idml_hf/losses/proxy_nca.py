"""The ProxyNCA loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from .proxy import ProxyLoss


class ProxyNCALoss(ProxyLoss):
    """ProxyNCA loss: each image is classified by its squared distance to the proxies.

        L = mean_i -log( exp(-scale * D_iy^2) / sum_c exp(-scale * D_ic^2) ),  y the class of i

    The sum runs over all proxies, that of y included, as in pytorch-metric-learning; the loss is never negative.

    Args:
        scale: inverse temperature (32, as in Proxy-Anchor's and IDML's code).

    References:
        Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017.

    Example:
        >>> import torch
        >>> from idml_hf.similarity import Metric
        >>> loss = ProxyNCALoss(num_classes=2, embedding_dim=2, metric=Metric("none"), scale=1.0)
        >>> loss.load_state_dict({"proxies": torch.tensor([[1.0, 0.0], [0.0, 2.0]])})
        <All keys matched successfully>
        >>> loss(torch.tensor([[0.8, 0.6]]), None, torch.tensor([0])).item()     # log(1 + exp(0.4 - 0.8))
        0.5130...
    """

    measure = "squared_distance"

    def __init__(
        self,
        *,
        scale: float = 32.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.scale = scale

    def matrix_loss(self, matrix: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy of the scaled negative squared distances."""
        return cross_entropy(-self.scale * matrix, labels)
