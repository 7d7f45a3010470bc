"""The multi-similarity loss with its miner."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import log_one_plus_sum_exp
from .pair import PairLoss, Pairs


class MultiSimilarityLoss(PairLoss):
    """Multi-similarity loss on the pairs that its miner finds informative.

        L = mean_i [ 1/a log(1 + sum_{j in P_i} exp(-a (S_ij - l))) + 1/b log(1 + sum_{j in N_i} exp(b (S_ij - l))) ]

    P_i: positives with S_ij - eps < the largest negative similarity of i; N_i: negatives with S_ij + eps > the
    smallest positive similarity of i. The mean is over all images; one that has no positive or no negative adds 0.

    Args:
        alpha: a, the sharpness on positives (2).
        beta: b, the sharpness on negatives (50).
        base: l, the similarity around which both are weighted (0.5).
        epsilon: eps, the slack of the miner (0.1). All defaults are those of the paper's code, Proxy-Anchor and IDML.

    References:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019, eq. 9-16.

    Example:
        >>> import torch
        >>> from idml_hf.similarity import Metric
        >>> loss = MultiSimilarityLoss(embedding_dim=2, metric=Metric("none"))
        >>> s = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
        >>> loss(s, None, torch.tensor([0, 0, 1]))
        tensor(0.4445)
    """

    measure = "similarity"

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        epsilon: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.epsilon = epsilon

    def matrix_loss(self, matrix: Tensor, pairs: Pairs) -> Tensor:
        """The mean over anchors of the terms of their mined positives and negatives."""
        with torch.no_grad():
            hardest_negative = torch.where(pairs.negative, matrix, -torch.inf).amax(1, keepdim=True)
            hardest_positive = torch.where(pairs.positive, matrix, torch.inf).amin(1, keepdim=True)
            positive = pairs.positive & (matrix - self.epsilon < hardest_negative)
            negative = pairs.negative & (matrix + self.epsilon > hardest_positive)
        pull = log_one_plus_sum_exp(-self.alpha * (matrix - self.base), positive, dim=1) / self.alpha
        push = log_one_plus_sum_exp(self.beta * (matrix - self.base), negative, dim=1) / self.beta
        return (pull + push).mean()
