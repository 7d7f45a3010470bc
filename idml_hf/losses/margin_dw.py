"""The margin loss with distance-weighted sampling."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from idml_hf.similarity import full_precision

from .pair import PairLoss, Pairs


class MarginLoss(PairLoss):
    """Margin loss with distance-weighted sampling: a learned boundary between positive and negative distances.

        L = ( sum [D_ap - beta + m]_+ + sum [beta - D_an + m]_+ ) / (number of terms > 0)  +  nu * beta

    over all positive pairs (a, p), each with one negative n drawn with probability proportional to

        1 / q(D_an),   log q(D) = (d - 2) log D + (d - 3)/2 log(1 - D^2 / 4)

    q being the density of distances on the unit sphere, with D raised to a cutoff first. Negatives beyond another
    cutoff, where the loss would be 0, are not drawn; pairs whose anchor has no negative nearer are left out.

    Draws come from torch's global generator and, under `torch.distributed`, from that of the first process.

    Args:
        margin: m (0.2).
        beta: value of the learned boundary before training (1.2).
        nu: weight of the boundary in the loss (0).
        cutoff: distance below which all negatives are drawn alike (0.5).
        nonzero_loss_cutoff: distance from which on negatives are not drawn (1.4), < 2. All defaults are those of the
            paper and of pytorch-metric-learning.

    References:
        Wu, Manmatha, Smola and Krähenbühl, "Sampling Matters in Deep Embedding Learning", ICCV 2017, sec. 4.

    Example:
        >>> import torch
        >>> from idml_hf.similarity import Metric
        >>> loss = MarginLoss(embedding_dim=2, metric=Metric("none"))
        >>> s = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> loss(s, None, torch.tensor([0, 0, 1]))
        tensor(0.5254, grad_fn=<AddBackward0>)
    """

    measure = "distance"

    def __init__(
        self,
        *,
        margin: float = 0.2,
        beta: float = 1.2,
        nu: float = 0.0,
        cutoff: float = 0.5,
        nonzero_loss_cutoff: float = 1.4,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not 0 < cutoff < nonzero_loss_cutoff < 2:
            raise ValueError(f"need 0 < cutoff < nonzero_loss_cutoff < 2; got {cutoff} and {nonzero_loss_cutoff}")
        self.margin = margin
        self.initial_beta = beta
        self.nu = nu
        self.cutoff = cutoff
        self.nonzero_loss_cutoff = nonzero_loss_cutoff
        self.beta = nn.Parameter(torch.tensor(float(beta), dtype=full_precision()))

    def reset_parameters(self) -> None:
        """Set the boundaries to where they start."""
        super().reset_parameters()
        nn.init.constant_(self.beta, self.initial_beta)

    def matrix_loss(self, matrix: Tensor, pairs: Pairs) -> Tensor:
        """The mean over the active terms of positives and sampled negatives."""
        positives, there = pairs.positive_columns()
        negatives, drawn = self.sample_negatives(matrix.detach(), pairs, positives.shape[1])
        there = there & drawn
        beta = self.beta.to(matrix)
        pull = matrix.gather(1, positives) - beta + self.margin
        push = beta - matrix.gather(1, negatives) + self.margin
        too_far, too_near = ((there & (term > 0)).to(matrix.dtype) for term in (pull, push))
        total = (pull * too_far).sum() + (push * too_near).sum()
        return total / (too_far.sum() + too_near.sum()).clamp_min(1) + self.nu * beta

    def sample_negatives(self, matrix: Tensor, pairs: Pairs, count: int) -> tuple[Tensor, Tensor]:
        """Draw `count` negatives for each row, with replacement.

        Returns:
            Columns, int64, shape (A, count), and whether the row has any negative to draw, boolean, shape (A, 1).
        """
        weights = self.weights(matrix, pairs)
        possible = weights.sum(1, keepdim=True) > 0
        negatives = torch.multinomial(torch.where(possible, weights, 1.0), count, replacement=True)
        if dist.is_available() and dist.is_initialized() and self.training:
            dist.broadcast(negatives, 0)
        return negatives, possible

    def weights(self, matrix: Tensor, pairs: Pairs) -> Tensor:
        """Probability of each negative of a row to be drawn, up to a factor for each row, shape (A, N)."""
        d = self.embedding_dim
        eligible = pairs.negative & (matrix < self.nonzero_loss_cutoff)
        squared = matrix.clamp(self.cutoff, self.nonzero_loss_cutoff).square_()
        log_weight = torch.log1p(squared / -4).mul_((3 - d) / 2).add_(squared.log_(), alpha=(2 - d) / 2)
        # Each row's own largest is taken off: with that of the batch, rows without near negatives would underflow.
        log_weight -= torch.where(eligible, log_weight, -torch.inf).amax(1, keepdim=True)
        return log_weight.clamp_(-80.0, 0.0).exp_().mul_(eligible.to(matrix.dtype))
