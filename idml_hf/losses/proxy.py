"""What the losses between images and class proxies share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from idml_hf.similarity import direction, full_precision

from .base import MetricLoss, require_labels


class ProxyLoss(MetricLoss):
    """A loss on comparisons of images with one learned proxy a class.

    A proxy has no uncertainty. Its `proxies`, shape (C, d), are drawn as in
    the authors' code: Kaiming normal, fan out.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        if not self.num_classes or self.num_classes < 1:
            raise ValueError(f"{type(self).__name__} needs num_classes, the number of training classes")
        self.proxies = nn.Parameter(torch.empty(self.num_classes, self.embedding_dim, dtype=full_precision()))
        self.reset_parameters()

    def batch_loss(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor, remember: bool) -> Tensor:
        """The loss of the batch among all proxies."""
        return self.matrix_loss(self.compare_with_proxies(semantic, uncertainty), labels)

    def compare_with_proxies(self, semantic: Tensor, uncertainty: Tensor | None) -> Tensor:
        """The loss's `measure` between unit embeddings and all proxies, shape (B, C)."""
        return self.compare(semantic, uncertainty, direction(self.proxies.to(semantic)), None)

    def matrix_loss(self, matrix: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            matrix: the loss's `measure` between the images of the batch and the proxies, shape (B, C).
            labels: class of each image, shape (B,), in [0, C).
        """
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw the proxies anew."""
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def _check(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor) -> None:
        super()._check(semantic, uncertainty, labels)
        classes = len(self.proxies)
        labels = labels.to(torch.int64)  # not all comparisons are there for unsigned integers
        message = f"labels must lie in [0, {classes}), the classes that have a proxy"
        require_labels(((labels >= 0) & (labels < classes)).all(), message, labels)
