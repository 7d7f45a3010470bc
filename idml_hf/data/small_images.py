"""Training images of one small size, all in memory: no decoder in the way, augmented a batch at a time."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .image_set import ImageSet
from .randomness import derive_seed, uniform
from .train_images import Draw
from .transforms import FLIP, PADDING

_ROWS = 4096
# netpbm, as `ImageSet.from_arrays` keeps small images
_HEADER = re.compile(rb"P([56]) (\d+) (\d+) 255\n")


class SmallImages(Dataset):
    """Images of one small size, all in memory, padded, cropped and flipped a batch at a time.

    It gives `{"pixel_values": uint8 (3, H, W), "labels": int}`. Asked for a `Draw`, it augments by a
    random stream that depends on (seed, epoch, position, index) alone, as `TrainImages` does; asked for
    an integer, it gives the image as it is.

    Args:
        images: The images.
        padding: Black pixels added on each side before a crop of the old size; 0 leaves the images in place.
        flip: Probability of a horizontal flip.
        seed: Seed of the run.

    Raises:
        ValueError: naming the first image of another size than the others.

    References:
        He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2 (padding 4, for CIFAR).
    """

    def __init__(self, images: ImageSet, padding: int = PADDING, flip: float = FLIP, seed: int = 0) -> None:
        self.pixels = read_pixels(images)
        self.labels = images.labels
        self.padding = padding
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | Draw) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[int | Draw]) -> list[dict[str, Any]]:
        indices = [key.index if isinstance(key, Draw) else key for key in keys]
        batch = self.pixels[indices]
        draws = [key for key in keys if isinstance(key, Draw)]
        if draws and (self.padding or self.flip):
            seeds = np.array([derive_seed(self.seed, *draw) for draw in draws], dtype=np.int64)
            batch = shift_and_flip(batch, uniform(seeds, 3), self.padding, self.flip)
        # grey images stay one channel until here; the channels of an expanded tensor share their memory
        batch = batch.expand(-1, 3, -1, -1)
        return [{"pixel_values": x, "labels": int(self.labels[i])} for x, i in zip(batch, indices, strict=True)]


def shift_and_flip(batch: Tensor, draws: np.ndarray, padding: int, flip: float) -> Tensor:
    """Pad with black, crop the old size at random, flip at random.

    Args:
        batch: `(B, C, H, W)`.
        draws: `(B, 3)` values in [0, 1): row and column of the crop, and flip.
        padding: Pixels added on each side.
        flip: Probability of a flip.

    Example:
        >>> image = torch.arange(1, 5).view(1, 1, 2, 2)
        >>> shift_and_flip(image, np.array([[0.0, 0.5, 0.9]]), padding=1, flip=0.5)
        tensor([[[[0, 0],
                  [1, 2]]]])
        >>> shift_and_flip(image, np.array([[0.5, 0.5, 0.0]]), padding=1, flip=0.5)
        tensor([[[[2, 1],
                  [4, 3]]]])
    """
    height, width = batch.shape[-2:]
    top, left = torch.from_numpy((draws[:, :2] * (2 * padding + 1)).astype(np.int64)).unbind(1)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    flipped = torch.from_numpy(draws[:, 2] < flip)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    padded = F.pad(batch, (padding, padding, padding, padding))
    image = torch.arange(len(batch))[:, None, None, None]
    channel = torch.arange(batch.shape[1])[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def read_pixels(images: ImageSet) -> torch.Tensor:
    """Read all images, which must have one size.

    Args:
        images: what to read; grey images that `ImageSet.from_arrays` made keep their one channel.

    Returns:
        uint8 (N, C, H, W), C = 3 or 1.

    Raises:
        ValueError: naming the first image of another size.
        UnreadableImageError: naming an image that cannot be decoded.

    Example:
        >>> grey = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
        >>> read_pixels(ImageSet.from_arrays(grey, [0, 0, 0], ["a"], "example")).shape
        torch.Size([3, 1, 2, 2])
    """
    if not len(images):
        raise ValueError("There are no images")
    pixels = _read_netpbm(images)
    if pixels is not None:
        return pixels
    first = images.tensor(0)
    pixels = first.new_empty((len(images), *first.shape))
    for index in range(len(images)):
        image = images.tensor(index)
        if image.shape != first.shape:
            sizes = " and ".join("x".join(str(side) for side in x.shape[:0:-1]) for x in (first, image))
            raise ValueError(f"The images must have one size: {images.image_id(index)} differs ({sizes} pixels)")
        pixels[index] = image
    return pixels


def _read_netpbm(images: ImageSet) -> torch.Tensor | None:
    """The same, a block at a time, if all images are netpbm with one header; else None."""
    header = _HEADER.match(images.file_bytes(0))
    if header is None:
        return None
    colour, width, height = header[1] == b"6", int(header[2]), int(header[3])
    shape = (height, width, 3) if colour else (height, width, 1)
    size = header.end() + int(np.prod(shape))
    pixels = np.empty((len(images), *shape), dtype=np.uint8)
    storage = images.storage.with_format("arrow")
    for start in range(0, len(images), _ROWS):
        files = storage[start : start + _ROWS]["image"].combine_chunks().field("bytes").to_pylist()
        if any(file is None or len(file) != size or not file.startswith(header[0]) for file in files):
            return None
        block = np.frombuffer(b"".join(files), dtype=np.uint8).reshape(len(files), size)
        pixels[start : start + len(files)] = block[:, header.end() :].reshape(len(files), *shape)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
