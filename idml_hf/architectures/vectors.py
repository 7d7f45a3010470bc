"""A backbone that hands on vectors: for embeddings of other models, and for features that were stored."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn


class Vectors(nn.Module):
    """Takes a matrix for a batch of images, and returns its rows with unit norm.

    Args:
        width: Length of a row.
        **kwargs: What timm gives to every architecture; ignored.

    Example:
        >>> import torch
        >>> Vectors(width=2).forward_features(torch.tensor([[3.0, 4.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = width
        self.num_classes = 0
        self.feature_info: list[dict[str, Any]] = []

    def forward_features(self, vectors: Tensor) -> Tensor:
        """`(B, width)`, rows of unit norm."""
        if vectors.ndim != 2 or vectors.shape[1] != self.num_features:
            raise ValueError(f"this model takes (B, {self.num_features}) vectors, got {tuple(vectors.shape)}")
        return F.normalize(vectors, dim=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """As `forward_features`."""
        return self.forward_features(vectors)


default_cfgs = generate_default_cfgs({"vectors.untrained": {"input_size": (3, 1, 1), "num_classes": 0}})


@register_model
def vectors(pretrained: bool = False, **kwargs: Any) -> Vectors:
    """No network at all: the vectors are the features."""
    model = Vectors(**kwargs)
    model.pretrained_cfg = model.default_cfg = default_cfgs["vectors"].default.to_dict()
    return model


__all__ = ["Vectors", "vectors"]
