"""Architectures that timm lacks, registered with timm by importing this package."""

from .pyramidnet import PyramidNet, pyramidnet200_a240
from .small_image_resnet import SmallImageResNet, resnet8_small, resnet50_small
from .vectors import Vectors, vectors

__all__ = [
    "PyramidNet",
    "SmallImageResNet",
    "Vectors",
    "pyramidnet200_a240",
    "resnet8_small",
    "resnet50_small",
    "vectors",
]
