"""ResNets whose stem suits images of about 32 pixels: of such an image timm's own leaves one pixel."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from .pyramidnet import cifar_cfg


class SmallImageResNet(ResNet):
    """timm's ResNet with one small convolution as its stem, and no pooling there.

    Args:
        block: `timm.models.resnet.BasicBlock` or `Bottleneck`.
        layers: Blocks in each of the four stages; 0 leaves one out, which must have the channels of the one before.
        channels: Channels of each stage before a bottleneck's expansion; the stem has those of the first.
        stem_kernel: Side of the stem's convolution.
        stem_stride: Its stride.
        **kwargs: Further arguments of timm's ResNet.

    Example:
        >>> import torch
        >>> model = SmallImageResNet(BasicBlock, (1, 1, 1, 0), channels=(8, 16, 32, 32), num_classes=10)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        block: type[nn.Module],
        layers: tuple[int, ...],
        channels: tuple[int, ...] = (64, 128, 256, 512),
        stem_kernel: int = 3,
        stem_stride: int = 1,
        **kwargs: Any,
    ) -> None:
        # timm ties the width of its single-layer stem to 64; that of its deep stem can be chosen
        super().__init__(block, layers, channels=channels, stem_type="deep", stem_width=channels[0] // 2, **kwargs)
        self.conv1 = nn.Conv2d(
            self.in_chans, channels[0], stem_kernel, stem_stride, padding=stem_kernel // 2, bias=False
        )
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()


default_cfgs = generate_default_cfgs(
    {
        "resnet8_small.untrained": cifar_cfg(input_size=(3, 28, 28), pool_size=(4, 4), num_classes=10),
        "resnet50_small.untrained": cifar_cfg(pool_size=(4, 4)),
    }
)


@register_model
def resnet8_small(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """Three basic blocks of 16, 32 and 64 channels: trains on 28-pixel images in minutes on one core."""
    arguments = {
        "block": BasicBlock,
        "layers": (1, 1, 1, 0),
        "channels": (16, 32, 64, 64),
        "stem_kernel": 5,
        "stem_stride": 2,
    }
    return build_model_with_cfg(SmallImageResNet, "resnet8_small", pretrained, **(arguments | kwargs))


@register_model
def resnet50_small(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """ResNet-50 with a 3 x 3 stem of stride 1, as is usual for CIFAR."""
    arguments = {"block": Bottleneck, "layers": (3, 4, 6, 3)}
    return build_model_with_cfg(SmallImageResNet, "resnet50_small", pretrained, **(arguments | kwargs))


__all__ = ["SmallImageResNet", "resnet8_small", "resnet50_small"]
