"""What the heads read of a backbone's feature maps.

This file travels with a checkpoint as remote code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# norm of the features that a linear head with a start reads: larger, Adam's first steps carry all units out of the
# ReLU's range; smaller, ProxyNCA, which sees only differences between an image's distances, hardly moves them
READ_NORM = 3.0
# length of each vector of an earlier map's statistics, beside 1 for those of the last: chosen on held-out training
# classes of two data sets
STAGE_WEIGHT = 2.5


def root_statistics(tokens: Tensor, maps: list[Tensor]) -> Tensor:
    """One vector an image of all that its feature maps say: each statistic's square root, normalised.

    Mean and maximum of each channel of the last map, and mean, standard deviation and maximum of each channel of
    earlier maps. Roots keep a few strong channels from drowning the others; vectors of one length keep wide maps from
    drowning narrow ones.

    Args:
        tokens: `(B, positions, C)`, the last feature map.
        maps: Earlier ones, each `(B, channels, H, W)`.

    Returns:
        `(B, 2 C + 3 * sum of channels)`, unit norm (but for statistics that are all 0).

    References:
        Perronnin et al., "Improving the Fisher Kernel for Large-Scale Image Classification", ECCV 2010 (power
        normalisation); Arandjelovic and Zisserman, "Three Things Everyone Should Know to Improve Object Retrieval",
        CVPR 2012 (the root of an L2- or L1-normalised vector).

    Example:
        >>> x = root_statistics(torch.rand(2, 9, 4), [torch.rand(2, 3, 6, 6)])
        >>> x.shape, x.norm(dim=1).round(decimals=4).tolist()
        (torch.Size([2, 17]), [1.0, 1.0])
    """
    parts = [_unit_root(tokens.mean(1)), _unit_root(tokens.amax(1))]
    for x in maps:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
        parts += [STAGE_WEIGHT * _unit_root(part) for part in (mean, (variance + 1e-6).sqrt(), x.amax((2, 3)))]
    return torch.cat(parts, dim=1) * (2 + 3 * len(maps) * STAGE_WEIGHT**2) ** -0.5


def _unit_root(x: Tensor) -> Tensor:
    # the signed root, with a slope that is finite at 0
    return F.normalize(x * (x.abs() + 1e-6).rsqrt(), dim=1)


def normalised(pooled: Tensor) -> Tensor:
    """Pooled features `(B, width)`, centred and scaled to a norm of 3: what a linear head with a start reads."""
    return F.layer_norm(pooled, pooled.shape[1:]) * (READ_NORM * pooled.shape[1] ** -0.5)


def with_statistics(pooled: Tensor, maps: list[Tensor]) -> Tensor:
    """What a head with a hidden layer reads: pooled features, and how earlier feature maps are filled.

    Args:
        pooled: `(B, width)`.
        maps: Feature maps, each `(B, channels, H, W)`.

    Returns:
        `(B, width + 3 * sum of channels)`: the pooled features, then for each map the mean, standard deviation and
        maximum of its channels, each of these vectors normalised.
    """
    parts = [pooled]
    for x in maps:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
        parts += [mean, (variance + 1e-6).sqrt(), x.amax((2, 3))]
    return torch.cat([F.layer_norm(part, part.shape[1:]) for part in parts], dim=1)


__all__ = ["normalised", "root_statistics", "with_statistics"]
