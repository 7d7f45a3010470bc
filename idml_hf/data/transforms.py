"""Image transforms for training, on uint8 tensors, and normalisation of whole batches on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torchvision.transforms import InterpolationMode, v2

# what images are augmented by unless told otherwise
FLIP = 0.5
PADDING = 4


def training_transform(
    image_size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = FLIP,
    interpolation: str = "bilinear",
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Random crop of random area and shape, resized to a square, flipped at random.

    Args:
        image_size: side of the result in pixels.
        mean, std: normalise each image by these per-channel values in units of [0, 1]; None: leave uint8, a
            quarter of the bytes to move, and normalise batches by `Normalizer` on the device.
        scale: area of the crop, as a share of the image's; the range is sampled evenly.
        ratio: width / height of the crop; sampled evenly in its logarithm.
        flip: probability of a horizontal flip; 0 where left and right mean something (letters, arrows).
        interpolation: `bilinear` or `bicubic`, with anti-aliasing.

    Returns:
        a function of a uint8 image (3, H, W) to (3, image_size, image_size), uint8 or float32. It draws from torch's
        CPU generator.
    """
    crop = v2.RandomResizedCrop(image_size, scale, ratio, InterpolationMode(interpolation), antialias=True)
    return v2.Compose([crop, *_flip_and_normalize(flip, mean, std)])


def padded_crop_transform(
    image_size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    padding: int = PADDING,
    flip: float = FLIP,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Pad with black, crop a square at random, flip at random: what is usual for CIFAR (He et al., 2016, section 4.2).

    Args:
        image_size: side of the result in pixels.
        mean, std, flip: as for `training_transform`.
        padding: pixels added on each side.

    Returns:
        a function as that of `training_transform`, of images of at least `image_size - 2 * padding` pixels a side.
    """
    return v2.Compose([v2.RandomCrop(image_size, padding), *_flip_and_normalize(flip, mean, std)])


def _flip_and_normalize(
    flip: float, mean: Sequence[float] | None, std: Sequence[float] | None
) -> list[torch.nn.Module]:
    steps: list[torch.nn.Module] = [v2.RandomHorizontalFlip(flip)] if flip else []
    return steps if mean is None or std is None else [*steps, Normalizer(mean, std)]


class Normalizer(torch.nn.Module):
    """uint8 pixels to normalised floats, `(pixel / 255 - mean) / std`, for images (3, H, W) or batches (B, 3, H, W).

    Args:
        mean, std: per-channel values in units of [0, 1].

    Example:
        >>> white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
        >>> round(Normalizer([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])(white).max().item(), 4)
        2.0
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        std_pixels = 255 * torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / std_pixels, -255 * torch.tensor(mean, dtype=torch.float64) / std_pixels
        self.register_buffer("scale", scale.float().view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(-1, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (..., 3, H, W) to float32 of the same shape, on the device of `pixels`."""
        scale, shift = self.scale.to(pixels.device), self.shift.to(pixels.device)
        return torch.addcmul(shift, pixels.float(), scale)
