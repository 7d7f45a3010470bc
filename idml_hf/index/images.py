"""Images to put into an index, from whatever a user has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from idml_hf.data import ImageSet, VectorSet, as_image_set, load_images
from idml_hf.data.as_image_set import is_table

from .queries import read_queries

Images = ImageSet | VectorSet | Sequence[Any] | str | Path


def gallery_images(images: Images) -> ImageSet | VectorSet | Sequence[Any]:
    """Images ready to be embedded, with their paths and classes where these are known.

    Args:
        images: an `ImageSet`; for a model of vectors a `VectorSet`; what `idml_hf.data.load_images` takes; a stream of
            `datasets`; an image, its path, or a list of these.

    Raises:
        FileNotFoundError, UnreadableImageError, ValueError: naming what cannot be read.
    """
    if isinstance(images, (ImageSet, VectorSet)):
        return images
    if is_table(images):
        return as_image_set(images)
    if isinstance(images, (str, Path)) and not Path(images).is_file():
        return load_images(images)
    if isinstance(images, (str, Path)):
        images = [images]
    if isinstance(images, (list, tuple)) and images and all(isinstance(image, (str, Path)) for image in images):
        for path in images:
            if not Path(path).exists():
                raise FileNotFoundError(f"there is no image {path}")
        return ImageSet.from_files(images, np.full(len(images), -1), ())
    return read_queries(images)[0]


def known_of(images: ImageSet | VectorSet | Sequence[Any]) -> dict[str, Any]:
    """What the source says of each image beside its class, as columns that a gallery keeps."""
    extra = images.extra if isinstance(images, ImageSet) else None
    if extra is None:
        return {}
    table = extra.with_format("arrow")[:]
    columns = {name: table.column(name) for name in table.column_names}
    for name, feature in extra.features.items():
        if isinstance(feature, datasets.ClassLabel):
            names = [feature.names[value] if value is not None and value >= 0 else None for value in extra[name][:]]
            columns[name] = names
    return columns


__all__ = ["Images", "gallery_images", "known_of"]
