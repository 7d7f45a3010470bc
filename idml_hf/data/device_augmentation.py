"""Augmentation of whole batches on the device, for images of one size: CIFAR, emoji, anything resized beforehand.

Images of mixed sizes must be resized one by one before they fit into a batch, and then cropping them in the same step,
as `training_transform` does, costs nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import roi_align

from .randomness import uniform
from .transforms import FLIP, Normalizer

ATTEMPTS = 10


class DeviceAugmentation(torch.nn.Module):
    """Random crop, resize, flip and normalisation of a uint8 batch, where the batch is.

    The crops are distributed as those of `training_transform`; each depends on its image's seed alone, so it is the
    same on every device. Resizing averages bilinear samples over each pixel of the result (RoIAlign; He et al., 2017).

    Args:
        image_size: side of the result in pixels.
        mean, std: per-channel values in units of [0, 1].
        scale: area of the crop, as a share of the image's.
        ratio: width / height of the crop.
        flip: probability of a horizontal flip.
    """

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = FLIP,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.scale, self.ratio, self.flip = scale, ratio, flip
        self.normalize = Normalizer(mean, std)

    def forward(self, pixels: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Augment.

        Args:
            pixels: uint8 (B, 3, H, W), on any device.
            seeds: int64 (B,), one an image, as `TrainImages` without a transform gives them.

        Returns:
            float32 (B, 3, image_size, image_size), on the device of `pixels`.
        """
        height, width = pixels.shape[-2:]
        draws = uniform(seeds.cpu().numpy(), 3 + 2 * ATTEMPTS)
        boxes = crop_boxes(draws[:, 1:], height, width, self.scale, self.ratio)
        index = np.arange(len(boxes), dtype=np.float64)[:, None]
        rois = torch.from_numpy(np.concatenate([index, boxes], axis=1)).float().to(pixels.device, non_blocking=True)
        flipped = torch.from_numpy(draws[:, 0] < self.flip).to(pixels.device, non_blocking=True)
        cropped = roi_align(self.normalize(pixels), rois, self.image_size, aligned=True)
        return torch.where(flipped[:, None, None, None], cropped.flip(-1), cropped)


def crop_boxes(
    draws: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Boxes of random area and shape, as torchvision's `RandomResizedCrop` draws them.

    Args:
        draws: values in [0, 1), (B, 2 + 2 * ATTEMPTS).
        height, width: size of the images.
        scale, ratio: as for `DeviceAugmentation`.

    Returns:
        float64 (B, 4): left, top, right, bottom in pixels. Where no attempt fits into the image, it is the whole image
        cut to the nearest allowed ratio, in the middle.
    """
    areas = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, 2 : 2 + ATTEMPTS])
    low, high = np.log(ratio)
    ratios = np.exp(low + (high - low) * draws[:, 2 + ATTEMPTS : 2 + 2 * ATTEMPTS])
    widths, heights = np.round(np.sqrt(areas * ratios)), np.round(np.sqrt(areas / ratios))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = fits.argmax(axis=1)[:, None]
    w, h = np.take_along_axis(widths, first, axis=1)[:, 0], np.take_along_axis(heights, first, axis=1)[:, 0]
    left, top = np.floor(draws[:, 0] * (width - w + 1)), np.floor(draws[:, 1] * (height - h + 1))
    nearest = min(max(width / height, ratio[0]), ratio[1])
    whole_w, whole_h = min(width, round(height * nearest)), min(height, round(width / nearest))
    none = ~fits.any(axis=1)
    w, h = np.where(none, whole_w, w), np.where(none, whole_h, h)
    left, top = np.where(none, (width - whole_w) // 2, left), np.where(none, (height - whole_h) // 2, top)
    return np.stack([left, top, left + w, top + h], axis=1)
