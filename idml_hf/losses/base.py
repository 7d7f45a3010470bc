"""What all losses share: from embeddings and labels to a matrix of distances or similarities."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from idml_hf.similarity import Metric, at_least_float32, direction

from .gather import gather_batch

RATIO = Metric()

Measure = Literal["distance", "squared_distance", "similarity"]


class MetricLoss(nn.Module):
    """A loss on semantic embeddings, uncertainty embeddings and labels.

    Embeddings are normalised (a no-op on those of a model) and compared in float32, or in float64 if they are that,
    whatever autocast says. In training under `torch.distributed` each process computes the loss of the joined batch,
    so that the mean of gradients over processes is the gradient of one process with that batch.

    A subclass has keyword arguments of its own, and hands the others on to here.

    Args:
        embedding_dim: values d of a semantic embedding.
        num_classes: number of training classes C; the losses between images do without (None).
        metric: what embeddings are compared by.

    Raises:
        ValueError: a form of the metric that the loss cannot be computed on.
    """

    forms: ClassVar[tuple[str, ...]] = ("ratio", "none")
    """Forms of the metric that the loss can be computed on."""

    measure: ClassVar[Measure]
    """What the loss is written on: ``"distance"`` D, ``"squared_distance"`` D^2 or ``"similarity"`` 1 - D^2 / 2."""

    def __init__(self, *, embedding_dim: int, num_classes: int | None = None, metric: Metric = RATIO) -> None:
        super().__init__()
        if metric.form not in self.forms:
            raise ValueError(f"{type(self).__name__} has no form {metric.form!r}, only {', '.join(self.forms)}")
        self.embedding_dim = embedding_dim
        self.num_classes = num_classes
        self.metric = metric

    @classmethod
    def hyper_parameters(cls) -> dict[str, Any]:
        """The keyword arguments that are the loss's own, with their defaults."""
        return {
            name: parameter.default
            for base in cls.__mro__
            if issubclass(base, MetricLoss) and base is not MetricLoss
            for name, parameter in inspect.signature(base).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    def forward(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor, remember: bool = True) -> Tensor:
        """Compute the loss of a batch.

        Args:
            semantic: semantic embeddings, shape (B, d).
            uncertainty: uncertainty embeddings, shape (B, d_u); None means 0. Form ``"none"`` ignores them.
            labels: class of each image, shape (B,), integers of any type; those of a `ProxyLoss` lie in [0, C).
            remember: whether the batch enters the cross-batch memory, if the loss has one. Images mixed of two classes
                should not.

        Returns:
            Scalar, float32 or float64; 0, with gradients of 0, where the batch has nothing to compare.

        Raises:
            ValueError: shapes or labels that do not fit.
        """
        self._check(semantic, uncertainty, labels)
        with torch.autocast(semantic.device.type, enabled=False):
            semantic = direction(semantic)
            plain = self.metric.form == "none"
            uncertainty = None if plain or uncertainty is None else at_least_float32(uncertainty)
            labels = labels.to(semantic.device, torch.int64)
            if self.training:
                semantic, uncertainty, labels = gather_batch(semantic, uncertainty, labels)
            return self.batch_loss(semantic, uncertainty, labels, remember and self.training)

    def batch_loss(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor, remember: bool) -> Tensor:
        """The loss of the whole batch: unit embeddings in full precision, int64 labels."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Give the loss's own parameters and buffers the values they have before training."""

    def compare(self, s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None) -> Tensor:
        """The matrix the loss is written on (its `measure`), shape (A, B), for unit embeddings."""
        return getattr(self.metric, self.measure)(s_a, u_a, s_b, u_b)

    def _check(self, semantic: Tensor, uncertainty: Tensor | None, labels: Tensor) -> None:
        if semantic.ndim != 2 or semantic.shape[1] != self.embedding_dim or len(semantic) == 0:
            raise ValueError(f"semantic must have shape (B, {self.embedding_dim}); got {tuple(semantic.shape)}")
        if uncertainty is not None and (uncertainty.ndim != 2 or len(uncertainty) != len(semantic)):
            raise ValueError(f"uncertainty must have shape ({len(semantic)}, d_u); got {tuple(uncertainty.shape)}")
        if labels.shape != semantic.shape[:1]:
            raise ValueError(f"labels must have shape ({len(semantic)},); got {tuple(labels.shape)}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be integers; got {labels.dtype}")

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"form={self.metric.form}, tau={self.metric.tau}"


def require_labels(fit: Tensor, message: str, labels: Tensor) -> None:
    """Refuse labels that do not fit, where that can be known without waiting for the device or breaking a graph.

    Args:
        fit: boolean scalar.
        message: what is required.
        labels: what the message shows the range of.
    """
    if torch.compiler.is_compiling() or fit.device.type != "cpu":
        torch._assert_async(fit, message)
    elif not fit:
        raise ValueError(f"{message}; got {labels.min()} to {labels.max()}")


def log_one_plus_sum_exp(x: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """``log(1 + sum exp(x))`` over the chosen entries of a dimension, safe from overflow; 0 where none is chosen."""
    return _LogOnePlusSumExp.apply(x, chosen, dim)


class _LogOnePlusSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: Tensor, dim: int) -> Tensor:
        # What is not chosen becomes 0 and not -inf: exponentials that underflow take ten times as long on a CPU.
        keep = chosen.to(x.dtype)
        x = x * keep
        largest = x.amax(dim, keepdim=True).clamp_min_(0)
        terms = x.sub_(largest).exp_().mul_(keep)
        others = terms.sum(dim, keepdim=True) + torch.expm1(-largest)
        ctx.save_for_backward(terms, others)
        ctx.dim = dim
        return (largest + torch.log1p(others)).squeeze(dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        terms, others = ctx.saved_tensors
        return terms * (grad.unsqueeze(ctx.dim) / (1 + others)), None, None
