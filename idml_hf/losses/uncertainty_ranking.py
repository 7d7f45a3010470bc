"""The term by which the uncertainty learns to order images: the harder of two should be the more uncertain."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from idml_hf.reference_memory import EMPTY, PastImages, ReferenceMemory
from idml_hf.similarity import at_least_float32, direction

from .gather import gather_batch


class UncertaintyRanking(PastImages):
    """Ranks uncertainties by the hardness of images, and by how much their copies are degraded.

        L = mean over pairs of images with h_i > h_j of log(1 + exp(-(log||u_i|| - log||u_j||) / T))
          + w * mean over pairs of views of log(1 + exp(-(log||u_strong|| - log||u_weak||) / T))

    The hardness h of an image is how far a search for it goes wrong among the images of earlier batches, which the
    model's [`ReferenceMemory`] holds: the similarity of the nearest of another class less that of the nearest of its
    own class and another group. Only ratios of uncertainties count, so a factor common to all, such as that of the
    `"budget"` activation, changes nothing.

    Args:
        memory_size: number of images M of the memory, whose classes and groups are kept here.
        temperature: T, > 0; the larger, the further the uncertainties are spread.
        view_weight: w.

    References:
        Burges et al., "Learning to Rank using Gradient Descent", ICML 2005; Kirchhof et al., "URL: A Representation
        Learning Benchmark for Transferable Uncertainty Estimates", NeurIPS 2023, where heads that predict the loss
        from features without sending a gradient back rank best.
    """

    labels: Tensor
    groups: Tensor

    def __init__(self, memory_size: int, temperature: float = 0.25, view_weight: float = 2.0) -> None:
        super().__init__(memory_size)
        self.temperature = temperature
        self.view_weight = view_weight
        # images without them are in no comparison
        self.add_numbers("labels")
        self.add_numbers("groups")

    def forward(
        self,
        uncertainty: Tensor,
        semantic: Tensor,
        labels: Tensor,
        memory: ReferenceMemory,
        groups: Tensor | None = None,
        views: Tensor | None = None,
    ) -> Tensor:
        """Compute the term for a batch, and take the batch into the memory.

        Args:
            uncertainty: ||u|| of the images, shape (B,).
            semantic: their semantic embeddings, shape (B, d); no gradient flows to them.
            labels: their classes, shape (B,), integers.
            memory: the images of earlier batches, M at most.
            groups: their groups, shape (B,), integers; None: all images of a class are matches.
            views: ||u|| of m images degraded less, then of the same m degraded more, shape (2 m,).

        Returns:
            Scalar, float32 or float64.
        """
        with torch.autocast(semantic.device.type, enabled=False):
            batch_groups = torch.full_like(labels, EMPTY) if groups is None else groups.to(labels)
            column = _log(uncertainty).unsqueeze(1)
            embeddings, scores, labels = gather_batch(direction(semantic.detach()), column, labels.long())
            batch_groups = gather_batch(column.detach(), None, batch_groups.long())[2]
            assert scores is not None
            hardness = self.hardness(embeddings, labels, batch_groups, memory)
            term = ranking_loss(scores.squeeze(1), hardness, self.temperature)
            self.remember(embeddings, labels, batch_groups, memory)
            if views is not None:
                weak, strong = _log(views).chunk(2)
                term = term + self.view_weight * softplus((weak - strong) / self.temperature).mean()
            return term

    @torch.no_grad()
    def hardness(self, semantic: Tensor, labels: Tensor, groups: Tensor, memory: ReferenceMemory) -> Tensor:
        """Similarity of the nearest wrong image of the memory less that of the nearest right one.

        Args:
            semantic: unit embeddings, shape (B, d).
            labels: their classes, shape (B,), int64.
            groups: their groups, shape (B,), int64.
            memory: the images they are compared with.

        Returns:
            Shape (B,), in [-2, 2]; NaN where the memory has no right or no wrong image.
        """
        similarity = semantic @ memory.embeddings.to(semantic).mT
        same = labels.unsqueeze(1) == self.labels
        # without groups all are EMPTY, and none is left out
        twins = (groups.unsqueeze(1) == self.groups) & (self.groups != EMPTY)
        right = similarity.masked_fill(~same | twins, -torch.inf).amax(1)
        wrong = similarity.masked_fill(same | (self.labels == EMPTY), -torch.inf).amax(1)
        return torch.where(right.isfinite() & wrong.isfinite(), wrong - right, torch.nan)

    def remember(self, semantic: Tensor, labels: Tensor, groups: Tensor, memory: ReferenceMemory) -> None:
        """Take a batch, as for `hardness`, into the memory."""
        self.put(memory.remember(semantic), labels=labels, groups=groups)


def _log(uncertainty: Tensor) -> Tensor:
    return at_least_float32(uncertainty).clamp_min(1e-12).log()


def ranking_loss(scores: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean over pairs with ``targets_i > targets_j`` of ``log(1 + exp(-(scores_i - scores_j) / temperature))``.

    Args:
        scores: shape (B,).
        targets: shape (B,); rows whose target is NaN are in no pair.
        temperature: > 0.

    Returns:
        Scalar; 0, with gradients of 0, where no two targets differ.

    Example:
        >>> import torch
        >>> ranking_loss(torch.tensor([0.5, 0.0]), torch.tensor([2.0, 1.0]), temperature=0.25)
        tensor(0.1269)
    """
    above = (targets.unsqueeze(1) > targets).to(scores.dtype)
    cost = softplus((scores - scores.unsqueeze(1)) / temperature)
    return (cost * above).sum() / above.sum().clamp_min(1)
