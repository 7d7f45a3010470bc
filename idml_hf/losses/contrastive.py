"""The contrastive loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .pair import PairLoss, Pairs


class ContrastiveLoss(PairLoss):
    """Contrastive loss: images of one class within a margin of each other, images of two classes beyond another.

        L = mean of D_ij - m_p over positives with D_ij > m_p  +  mean of m_n - D_ij over negatives with D_ij < m_n

    Args:
        pos_margin: m_p, the distance within which positives cost nothing (0, as in pytorch-metric-learning).
        neg_margin: m_n, the distance beyond which negatives cost nothing (0.5, as in Proxy-Anchor's and IDML's code).

    References:
        Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.

    Example:
        >>> import torch
        >>> from idml_hf.similarity import Metric
        >>> loss = ContrastiveLoss(embedding_dim=2, metric=Metric("none"))
        >>> s = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
        >>> loss(s, None, torch.tensor([0, 0, 1]))      # 0.6325 + mean(0.5 - 0.2828, 0.5 - 0.3578)
        tensor(0.8121)
        >>> introspective = ContrastiveLoss(embedding_dim=2)
        >>> introspective(s, torch.ones(3, 2), torch.tensor([0, 0, 1]))
        tensor(0.7026)
    """

    measure = "distance"

    def __init__(
        self,
        *,
        pos_margin: float = 0.0,
        neg_margin: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.pos_margin = pos_margin
        self.neg_margin = neg_margin

    def matrix_loss(self, matrix: Tensor, pairs: Pairs) -> Tensor:
        """The mean over pairs that are too far plus the mean over those that are too near."""
        too_far = pairs.positive & (matrix > self.pos_margin)
        too_near = pairs.negative & (matrix < self.neg_margin)
        # On these pairs the loss is linear: each distance counts for its share of the mean it is in.
        far, near = (chosen.count_nonzero().to(matrix.dtype) for chosen in (too_far, too_near))
        weight = too_far.to(matrix.dtype).div_(far.clamp_min(1))
        weight -= too_near.to(matrix.dtype).div_(near.clamp_min(1))
        return (matrix * weight).sum() - self.pos_margin * far.clamp_max(1) + self.neg_margin * near.clamp_max(1)
