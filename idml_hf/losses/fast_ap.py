"""The FastAP loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .pair import PairLoss, Pairs


class FastAPLoss(PairLoss):
    """FastAP loss: one minus the average precision of each image as a query, differentiable by soft histograms.

        L = mean_i [ 1 - 1/|P_i| sum_k h+_k H+_k / H_k ]

    h_k: histogram of the squared distances of i to all others, on [0, 4], each shared linearly between the two nearest
    of the bins + 1 edges; h+_k: of those to its positives P_i; H_k, H+_k: their cumulative sums. The mean is over
    images that have positives.

    Args:
        num_bins: bins of the histogram (10, as in the paper and in pytorch-metric-learning).

    References:
        Cakir et al., "Deep Metric Learning to Rank", CVPR 2019, sec. 3.2 and 3.3.

    Example:
        >>> import torch
        >>> from idml_hf.similarity import Metric
        >>> loss = FastAPLoss(embedding_dim=2, metric=Metric("none"))
        >>> s = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8]])
        >>> loss(s, None, torch.tensor([0, 0, 1]))
        tensor(0.)
    """

    measure = "squared_distance"

    def __init__(
        self,
        *,
        num_bins: int = 10,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if num_bins < 1:
            raise ValueError(f"num_bins must be >= 1; got {num_bins}")
        self.num_bins = num_bins

    def matrix_loss(self, matrix: Tensor, pairs: Pairs) -> Tensor:
        """The mean of 1 - AP over the anchors that have positives."""
        edges = self.num_bins + 1
        # Opposites are 4 apart to rounding: beyond it, a share of the last bin would be negative.
        place = (matrix * (self.num_bins / 4.0)).clamp_max(self.num_bins)
        left = place.detach().long().clamp_(0, self.num_bins - 1)
        counted = (pairs.positive | pairs.negative).to(matrix.dtype)
        to_right = (place - left) * counted
        # Two histograms side by side, of the positives and of the negatives.
        left.add_(pairs.negative.to(left.dtype), alpha=edges)
        empty = matrix.new_zeros(len(matrix), 2 * edges)
        histogram = empty.scatter_add(1, left, counted - to_right)
        histogram = histogram + pad(empty.scatter_add(1, left, to_right)[:, :-1], (1, 0))
        positive = histogram[:, :edges]
        positive_so_far = positive.cumsum(1)
        so_far = (positive + histogram[:, edges:]).cumsum(1)
        found = (positive * positive_so_far / so_far.clamp_min(torch.finfo(matrix.dtype).tiny)).sum(1)
        wanted = pairs.positive.sum(1, dtype=matrix.dtype)
        queries = (wanted > 0).to(matrix.dtype)
        return (queries - found / wanted.clamp_min(1)).sum() / queries.sum().clamp_min(1)
