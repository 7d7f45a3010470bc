"""The triplet loss on semi-hard triplets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .pair import PairLoss, Pairs


class TripletSemihardLoss(PairLoss):
    """Triplet loss on all semi-hard triplets: the negative is farther than the positive, but not by the margin.

        L = mean of D_ap - D_an + m over triplets (a, p, n) with 0 < D_an - D_ap < m

    The triplets are counted, never listed: time O(B^2 log K) and memory O(B^2) for classes of up to K images.

    Args:
        margin: m (0.1, as in Proxy-Anchor's and IDML's code).

    References:
        Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015.

    Example:
        >>> import torch
        >>> from idml_hf.similarity import Metric
        >>> loss = TripletSemihardLoss(embedding_dim=2, metric=Metric("none"))
        >>> s = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.75, -0.6614]])
        >>> loss(s, None, torch.tensor([0, 0, 1]))      # one triplet: 0.6325 - 0.7071 + 0.1
        tensor(0.0254)
    """

    measure = "distance"

    def __init__(
        self,
        *,
        margin: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.margin = margin

    def matrix_loss(self, matrix: Tensor, pairs: Pairs) -> Tensor:
        """The mean over the semi-hard triplets."""
        # A mean of triplets is a sum of distances, each weighted by how many triplets it is in.
        weight, count = self._count(matrix.detach(), pairs)
        return (matrix * weight).sum() + self.margin * count.clamp_max(1).to(matrix.dtype)

    def _count(self, matrix: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Semi-hard triplets a distance is in, + as the positive, - as the negative, over their number; the number."""
        columns, there = pairs.positive_columns()
        positives, order = matrix.gather(1, columns).masked_fill_(~there, torch.inf).sort(dim=1)
        # A negative makes triplets with the positives in places low to high; what is none finds low = high = 0.
        negatives = torch.where(pairs.negative, matrix, -torch.inf)
        high = torch.searchsorted(positives, negatives)
        # Differences near the margin are exact in float32, a distance less the margin is not.
        exact = torch.float32 if matrix.device.type == "mps" else torch.float64
        low = torch.searchsorted(positives.to(exact), negatives.to(exact).sub_(self.margin), right=True)
        # A positive makes them with the negatives whose places it lies in: those begun before it less those ended.
        one = low.new_ones(()).expand_as(low)
        begun, ended = (
            low.new_zeros(len(matrix), positives.shape[1] + 1).scatter_add_(1, places, one) for places in (low, high)
        )
        as_positive = begun.sub_(ended).cumsum(1)[:, :-1]
        as_negative = high.sub_(low)
        count = as_negative.sum()
        weight = -as_negative.to(matrix.dtype)
        weight.scatter_add_(1, columns.gather(1, order), as_positive.to(matrix.dtype))
        return weight.div_(count.clamp_min(1)), count
