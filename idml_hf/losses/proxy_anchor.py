"""The Proxy-Anchor loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idml_hf.similarity import introspective_similarity

from .base import log_one_plus_sum_exp
from .proxy import ProxyLoss


class ProxyAnchorLoss(ProxyLoss):
    """Proxy-Anchor loss: each proxy pulls all images of its class in the batch and pushes all others.

        L = mean_{p in P+} log(1 + sum_{x in X_p} exp(-a (S_xp - m)))
          + mean_p         log(1 + sum_{x not in X_p} exp(a (S_xp + m)))

    P+: the proxies whose class is in the batch; X_p: the images of the class of p.

    Args:
        margin: m (0.1).
        alpha: a, the sharpness (32). Both as in the paper and in IDML's code.

    References:
        Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, eq. 4.

    Example:
        >>> import torch
        >>> from idml_hf.similarity import Metric
        >>> loss = ProxyAnchorLoss(num_classes=2, embedding_dim=2, metric=Metric("none"))
        >>> loss.load_state_dict({"proxies": torch.tensor([[1.0, 0.0], [0.0, 2.0]])})
        <All keys matched successfully>
        >>> loss(torch.tensor([[0.96, 0.28], [0.8, 0.6]]), None, torch.tensor([0, 1]))
        tensor(20.4800, grad_fn=<AddBackward0>)
    """

    forms = ("ratio", "released", "none")
    measure = "similarity"

    def __init__(
        self,
        *,
        margin: float = 0.1,
        alpha: float = 32.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.margin = margin
        self.alpha = alpha

    def compare_with_proxies(self, semantic: Tensor, uncertainty: Tensor | None) -> Tensor:
        """The similarities, in the form `"released"` to the proxies as they are, in the others to unit proxies."""
        if self.metric.form == "released":
            return introspective_similarity(
                semantic, uncertainty, self.proxies.to(semantic), None, self.metric.form, self.metric.tau
            )
        return super().compare_with_proxies(semantic, uncertainty)

    def matrix_loss(self, matrix: Tensor, labels: Tensor) -> Tensor:
        """The mean over proxies with positives plus the mean over all proxies of the negatives' terms."""
        positive = labels.unsqueeze(1) == torch.arange(matrix.shape[1], device=labels.device)
        pull = log_one_plus_sum_exp(-self.alpha * (matrix - self.margin), positive, dim=0)
        push = log_one_plus_sum_exp(self.alpha * (matrix + self.margin), ~positive, dim=0)
        # A class that is not in the batch pulls nothing: its term is log(1) = 0.
        return pull.sum() / positive.any(0).sum() + push.mean()
