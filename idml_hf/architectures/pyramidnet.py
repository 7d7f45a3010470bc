"""PyramidNet with bottleneck blocks for images of 32 pixels (Han, Kim and Kim, CVPR 2017)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

EXPANSION = 4


class PyramidBottleneck(nn.Module):
    """Pre-activation bottleneck with a norm at its end; the shortcut pools, and gets zeros for the new channels.

    Args:
        in_channels: Channels of the input.
        width: Channels of the 3 x 3 convolution; the output has four times as many.
        stride: 1, or 2 to halve the side.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * EXPANSION, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(width * EXPANSION)
        self.shortcut = nn.Identity() if stride == 1 else nn.AvgPool2d(2, ceil_mode=True)
        self.new_channels = width * EXPANSION - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, 4 * width, H / stride, W / stride)`."""
        y = self.conv1(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.bn4(self.conv3(F.relu(self.bn3(y))))
        return y + F.pad(self.shortcut(x), (0, 0, 0, 0, 0, self.new_channels))


class PyramidNet(nn.Module):
    """A residual network whose width grows a little with every block, instead of doubling with every stage.

    Args:
        depth: Number of layers, 9 n + 2.
        alpha: Channels added from the first block to the last, before the bottleneck's expansion.
        num_classes: Classes of the classifier; 0 leaves it out.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling before the classifier; "" keeps the feature map.

    References:
        Han, Kim and Kim, "Deep Pyramidal Residual Networks", CVPR 2017 (additive, "bottleneck" for CIFAR).

    Example:
        >>> import torch
        >>> PyramidNet(depth=11, alpha=12, num_classes=10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self,
        depth: int = 200,
        alpha: float = 240,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 9)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 9 n + 2 with n >= 1, not {depth}")
        self.num_classes = num_classes
        self.grad_checkpointing = False
        channels = 16
        self.conv1 = nn.Conv2d(in_chans, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.feature_info = []
        widths = [round(16 + alpha * (i + 1) / (3 * blocks)) for i in range(3 * blocks)]
        for stage in range(3):
            layers = []
            for i, width in enumerate(widths[stage * blocks : (stage + 1) * blocks]):
                layers.append(PyramidBottleneck(channels, width, stride=2 if stage and not i else 1))
                channels = width * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            self.feature_info.append({"num_chs": channels, "reduction": 2**stage, "module": f"layer{stage + 1}"})
        self.bn_final = nn.BatchNorm2d(channels)
        self.num_features = self.head_hidden_size = channels
        self.global_pool, self.fc = create_classifier(channels, num_classes, pool_type=global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Put a fresh classifier in place; 0 classes leave it out."""
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images `(B, 3, H, W)` to features `(B, num_features, H / 4, W / 4)`."""
        x = self.bn1(self.conv1(x))
        for stage in (self.layer1, self.layer2, self.layer3):
            recompute = self.grad_checkpointing and not torch.jit.is_scripting()
            x = checkpoint_seq(stage, x) if recompute else stage(x)
        return F.relu(self.bn_final(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the feature map and classify it."""
        x = self.global_pool(x)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images `(B, 3, H, W)`."""
        return self.forward_head(self.forward_features(x))


def cifar_cfg(**kwargs: Any) -> dict[str, Any]:
    """Data configuration of a model for CIFAR, in timm's form, with the channel statistics of its training images."""
    return {
        "url": "",
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (125.3 / 255, 123.0 / 255, 113.9 / 255),
        "std": (63.0 / 255, 62.1 / 255, 66.7 / 255),
        "first_conv": "conv1",
        "classifier": "fc",
        **kwargs,
    }


default_cfgs = generate_default_cfgs({"pyramidnet200_a240.untrained": cifar_cfg()})


@register_model
def pyramidnet200_a240(pretrained: bool = False, **kwargs: Any) -> PyramidNet:
    """PyramidNet-200 of widening factor 240: the CIFAR network of CutMix (Yun et al., 2019)."""
    return build_model_with_cfg(PyramidNet, "pyramidnet200_a240", pretrained, **{"depth": 200, "alpha": 240, **kwargs})


__all__ = ["PyramidBottleneck", "PyramidNet", "cifar_cfg", "pyramidnet200_a240"]
