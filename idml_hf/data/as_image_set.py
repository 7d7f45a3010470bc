"""`as_image_set`: whatever a user has of images - paths, pictures, arrays, tables - as an `ImageSet`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
import PIL.Image

from idml_hf.rgb import array_to_rgb, to_rgb

from .decoding import UnreadableImageError, check_size, encode_pixels, path_text
from .image_set import UNLABELLED, ImageSet
from .loading import load_images


def as_image_set(
    images: Any, labels: Any = None, class_names: Sequence[str] | None = None, *, split: str | None = None
) -> ImageSet:
    """Images of any kind, to embed, index, search or train on them.

    Args:
        images: an `ImageSet`; a `datasets.Dataset`, `DatasetDict` or `IterableDataset`, of any format, the last read
            to its end; the name, folder or Hub id of a data set, see `load_images`; the path of an image, a PIL image,
            an array or a tensor, see [`idml_hf.rgb.array_to_rgb`]; or an iterable of these, mixed and of any sizes, of
            which the files are opened only when they are asked for.
        labels: integers (N,), or names of classes; default: those that the images come with, else -1.
        class_names: name of each label; default: the labels as text.
        split: as for `load_images`.

    Raises:
        FileNotFoundError: naming a file that is not there.
        UnreadableImageError: for a picture of too many pixels.
        TypeError, ValueError: for what is no image, naming its place.

    Example:
        >>> pictures = [PIL.Image.new("L", (4, 2)), np.zeros((3, 3, 3), np.uint8)]
        >>> images = as_image_set(pictures, ["cat", "dog"])
        >>> len(images), images[0].size, images.class_names
        (2, (4, 2), ('cat', 'dog'))
    """
    if isinstance(images, datasets.IterableDataset):
        images = _whole_stream(images)
    if isinstance(images, ImageSet):
        found = images
    elif isinstance(images, (datasets.Dataset, datasets.DatasetDict)):
        # decoded once, when they are used: what cannot be read is named then
        found = load_images(images, split, check_images=False)
    elif isinstance(images, (str, os.PathLike)) and not os.path.isfile(images):
        found = load_images(os.fspath(images), split)
    else:
        found = _from_items(_items(images))
    return found if labels is None else _labelled(found, labels, class_names)


def is_table(images: Any) -> bool:
    """Whether these are a `Dataset`, a `DatasetDict` or an `IterableDataset`."""
    return isinstance(images, (datasets.Dataset, datasets.DatasetDict, datasets.IterableDataset))


def _items(images: Any) -> list[Any]:
    if isinstance(images, (str, bytes, os.PathLike, PIL.Image.Image)):
        return [images]
    if hasattr(images, "ndim") and images.ndim in (2, 3):
        return [images]
    if not isinstance(images, Iterable):
        raise TypeError(f"expected images or their paths, got {type(images).__name__}")
    return list(images)


def _from_items(items: list[Any]) -> ImageSet:
    in_files = all(isinstance(item, (str, os.PathLike)) for item in items)
    ids, files, paths = [], [], []
    for row, item in enumerate(items):
        is_path = isinstance(item, (str, os.PathLike))
        if is_path and not os.path.lexists(item):
            raise FileNotFoundError(f"there is no image {path_text(item)}")
        ids.append(path_text(item) if is_path else f"image {row}")
        paths.append(ids[-1] if is_path else None)
        files.append(None if is_path else _encoded(item, row))
    return ImageSet.from_encoded(files, paths, np.full(len(items), UNLABELLED), [], ids=ids, in_files=in_files)


def _encoded(item: Any, row: int) -> bytes:
    if isinstance(item, (bytes, bytearray)):
        return bytes(item)
    try:
        if isinstance(item, PIL.Image.Image):
            check_size(*item.size)
            return encode_pixels(np.asarray(to_rgb(item)))
        if hasattr(item, "__array__"):
            return encode_pixels(array_to_rgb(item))
    except UnreadableImageError as error:
        raise UnreadableImageError(f"image {row} {error}") from error
    except ValueError as error:
        raise ValueError(f"image {row}: {error}") from error
    raise TypeError(f"image {row} is a {type(item).__name__}: expected a path, a PIL image, an array or a tensor")


def _labelled(images: ImageSet, labels: Any, class_names: Sequence[str] | None) -> ImageSet:
    given = np.asarray(labels)
    if given.shape != (len(images),):
        raise ValueError(f"{len(images)} images, but labels of shape {given.shape}")
    if given.dtype.kind in "US" or class_names is None:
        known = np.ones(len(given), dtype=bool) if given.dtype.kind in "US" else given != UNLABELLED
        names = sorted(set(given[known].tolist()))
        given = np.where(known, np.searchsorted(names, given) if names else 0, UNLABELLED)
        class_names = [str(name) for name in names]
    return images.with_labels(given, class_names)


def _whole_stream(stream: datasets.IterableDataset) -> datasets.Dataset:
    """All rows of a stream in memory, its images encoded as they are stored."""
    features = stream.features
    for name, feature in (features or {}).items():
        if isinstance(feature, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
    table = datasets.Dataset.from_list(list(stream), features=stream.features)
    table.info.builder_name = stream.info.builder_name
    return table
