"""What the losses between images share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from idml_hf.reference_memory import EMPTY

from .base import MetricLoss, require_labels
from .cross_batch_memory import CrossBatchMemory

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Pairs:
    """Which entries of an (A, N) matrix compare two images of one class, and which two of different classes.

    The first A columns are the anchors themselves; an image is not its own positive.
    """

    anchors: Tensor
    """Labels of the rows, shape (A,)."""
    others: Tensor
    """Labels of the columns, shape (N,)."""
    positive: Tensor
    """Boolean, shape (A, N)."""
    negative: Tensor
    """Boolean, shape (A, N)."""

    @classmethod
    def of(cls, anchors: Tensor, others: Tensor) -> Pairs:
        """All pairs; columns that are empty slots of a memory belong to none."""
        same = anchors.unsqueeze(1) == others.unsqueeze(0)
        negative = ~same
        if len(others) > len(anchors):
            negative &= others != EMPTY
        return cls(anchors, others, same.fill_diagonal_(False), negative)

    def positive_columns(self) -> tuple[Tensor, Tensor]:
        """The columns of each row's positives, side by side.

        Returns:
            Columns, int64, and whether they are there, boolean, both of shape (A, K), K the size of the largest class.
        """
        order = self.others.argsort(stable=True)
        in_order = self.others[order]
        first = torch.searchsorted(in_order, self.anchors)
        end = torch.searchsorted(in_order, self.anchors, right=True)
        # A size taken from data would break a graph; there the bound that always holds is used.
        width = len(order) if torch.compiler.is_compiling() else int((end - first).max())
        places = first.unsqueeze(1) + torch.arange(width, device=order.device)
        columns = order[places.clamp_max(len(order) - 1)]
        return columns, (places < end.unsqueeze(1)) & self.positive.gather(1, columns)


class PairLoss(MetricLoss):
    """A loss on comparisons between images: those of the batch, and what a memory holds of earlier ones."""

    memory: CrossBatchMemory | None

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.memory = None

    def with_memory(self, memory_size: int = 0, uncertainty_dim: int | None = None) -> Self:
        """Compare each image of a batch with images of earlier batches as well.

        The memory becomes a part of the loss and not a shell around it: learned parameters keep their names.

        Args:
            memory_size: their number, 0 for none.
            uncertainty_dim: values d_u of an uncertainty embedding; None means d.

        Returns:
            The loss.

        Raises:
            ValueError: a negative size.
        """
        if memory_size < 0:
            raise ValueError(f"memory_size must be >= 0; got {memory_size}")
        if memory_size:
            width = None if self.metric.form == "none" else uncertainty_dim or self.embedding_dim
            self.memory = CrossBatchMemory(memory_size, self.embedding_dim, width)
        return self

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """The loss's own arguments and those of the memory."""
        return super().hyper_parameters() | MEMORY_PARAMETERS

    def batch_loss(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor, remember: bool) -> Tensor:
        """The loss of the batch among itself and, in training, with the memory."""
        if self.memory is None or not self.training:
            matrix = self.compare(semantic, uncertainty, semantic, uncertainty)
            return self.matrix_loss(matrix, Pairs.of(labels, labels))
        others = self.memory.extend(semantic, uncertainty, labels)
        loss = self.matrix_loss(self.compare(semantic, uncertainty, *others[:2]), Pairs.of(labels, others[2]))
        if remember:
            self.memory.remember(semantic, uncertainty, labels)
        return loss

    def matrix_loss(self, matrix: Tensor, pairs: Pairs) -> Tensor:
        """The loss, a scalar.

        Args:
            matrix: the loss's `measure` between the images of the batch and those they are compared with, (A, N).
            pairs: which of its entries are positive and which negative.
        """
        raise NotImplementedError

    def _check(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor) -> None:
        super()._check(semantic, uncertainty, labels)
        if self.memory is not None:
            labels = labels.to(torch.int64)
            require_labels((labels != EMPTY).all(), "labels must not be -2**63, which marks empty slots", labels)

    def reset_parameters(self) -> None:
        """Forget what is remembered."""
        if self.memory is not None:
            self.memory.reset_parameters()


MEMORY_PARAMETERS: dict[str, Any] = {"memory_size": 0, "uncertainty_dim": None}
"""Arguments of `PairLoss.with_memory`, which `build_loss` takes beside a loss's own."""
