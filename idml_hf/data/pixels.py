"""All images of a small data set at once, for training without a decoder in the way."""

from __future__ import annotations

import re

import numpy as np
import torch

from .image_set import ImageSet

_ROWS = 4096
# netpbm, as `ImageSet.from_arrays` keeps small images
_HEADER = re.compile(rb"P([56]) (\d+) (\d+) 255\n")


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


__all__ = ["read_pixels"]
