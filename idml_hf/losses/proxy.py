"""What the losses between images and class proxies share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .base import MetricLoss


class ProxyLoss(MetricLoss):
    """A loss on comparisons of images with one learned proxy a class.

    A proxy has no uncertainty. Its `proxies`, shape (C, d), are drawn as in
    the authors' code: Kaiming normal, fan out.
    """

    def __init__(self, num_classes: int | None, embedding_dim: int, form: str = "ratio", tau: float = 5.0) -> None:
        super().__init__(num_classes, embedding_dim, form, tau)
        if not num_classes or num_classes < 1:
            raise ValueError(f"{type(self).__name__} needs num_classes, the number of training classes")
        self.proxies = nn.Parameter(torch.empty(num_classes, embedding_dim))
        self.reset_parameters()

    def batch_loss(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor, remember: bool) -> Tensor:
        return self.matrix_loss(self.compare_with_proxies(semantic, uncertainty), labels)

    def compare_with_proxies(self, semantic: Tensor, uncertainty: Tensor | None) -> Tensor:
        """The loss's `measure` between unit embeddings and all proxies, shape (B, C)."""
        return self.compare(semantic, uncertainty, normalize(self.proxies.to(semantic)), None)

    def matrix_loss(self, matrix: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            matrix: the loss's `measure` between the images of the batch and the proxies, shape (B, C).
            labels: class of each image, shape (B,), in [0, C).
        """
        raise NotImplementedError

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def _check(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor) -> None:
        super()._check(semantic, uncertainty, labels)
        classes = len(self.proxies)
        in_range = ((labels >= 0) & (labels < classes)).all()
        message = f"labels must lie in [0, {classes}), the classes that have a proxy"
        if torch.compiler.is_compiling() or in_range.device.type != "cpu":
            # Reading the answer would make every step wait for the device, or break the graph.
            torch._assert_async(in_range, message)
        elif not in_range:
            raise ValueError(f"{message}; got {labels.min()} to {labels.max()}")
