"""Images to ask with, from whatever a user has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from idml_hf.data import ImageSet, UnreadableImageError, VectorSet, as_image_set
from idml_hf.data.as_image_set import is_table
from idml_hf.data.decoding import check_size, decode_pil, read_file, to_rgb


def read_queries(images: Any) -> tuple[ImageSet | VectorSet | list[PIL.Image.Image], tuple[str, ...]]:
    """Images ready to be embedded, and what to call them.

    Args:
        images: a path, a PIL image or a uint8 array (H, W, 3); an iterable of these; an `ImageSet`; a table of
            `datasets`; or, for a model of vectors, a `VectorSet`.

    Raises:
        FileNotFoundError, UnreadableImageError, ValueError: naming the image that cannot be read or is too large.
        TypeError: for anything that is no image.
    """
    if is_table(images):
        images = as_image_set(images)
    if isinstance(images, (ImageSet, VectorSet)):
        return images, tuple(images.ids.to_pylist())
    if isinstance(images, (str, Path, PIL.Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    if not isinstance(images, Iterable):
        raise TypeError(f"expected images or their paths, got {type(images).__name__}")
    images = list(images)
    names = tuple(str(image) if isinstance(image, (str, Path)) else str(row) for row, image in enumerate(images))
    if not images:
        raise ValueError("there are no images to search for")
    return [_read(image, name) for image, name in zip(images, names, strict=True)], names


def _read(image: Any, name: str) -> PIL.Image.Image:
    if isinstance(image, (str, Path)):
        if not Path(image).exists():
            raise FileNotFoundError(f"there is no image {name}")
        if Path(image).is_dir():
            raise UnreadableImageError(f"{name} is a folder, not an image")
        try:
            return read_image(read_file(image), name)
        except UnreadableImageError as error:
            raise UnreadableImageError(str(error) if name in str(error) else f"{name} {error}") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise TypeError(f"image {name} must be uint8 (H, W) or (H, W, 3), got {image.dtype} {image.shape}")
        image = PIL.Image.fromarray(image)
    if not isinstance(image, PIL.Image.Image):
        raise TypeError(f"image {name} is a {type(image).__name__}: expected a path, a PIL image or a uint8 array")
    try:
        check_size(*image.size)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{name} {error}") from error
    return to_rgb(image)


def read_image(data: bytes, name: str) -> PIL.Image.Image:
    """Decode an encoded image.

    Raises:
        UnreadableImageError: naming the image, if it is broken or too large.
    """
    try:
        return decode_pil(data)
    except UnreadableImageError as error:
        raise UnreadableImageError(str(error) if name in str(error) else f"{name} {error}") from error


__all__ = ["read_image", "read_queries"]
