"""Finds the images that cannot be read, before a training run meets them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm.auto import tqdm

from idml_hf.errors import listing

from .decoding import UnreadableImageError, decode_pil, open_image
from .image_set import ImageSet

logger = logging.getLogger("idml_hf.data")

JPEG_END = b"\xff\xd9"
CHUNK = 256
T = TypeVar("T")
SHOWN = 20
HINT = "Repair or remove them, or go on without them: --skip-bad-images (in Python, skip_bad_images=True)."


class BadImage(NamedTuple):
    """An image that cannot be read: its index, its path or name, and why."""

    index: int  # type: ignore[assignment]
    id: str
    reason: str


def find_bad_images(images: ImageSet, *, thorough: bool = False, progress: bool | None = None) -> list[BadImage]:
    """The images that cannot be decoded in full: cut off, not images, empty, unreadable, or decompression bombs.

    Every image is decoded, except that of a JPEG only the header is parsed where its last bytes are the format's
    end marker: a cut-off file has lost it, and decoding all of ImageNet would take hours.

    Args:
        images: what to check; read by several threads.
        thorough: decode JPEGs too.
        progress: show a progress bar; default: for more than 5000 images.
    """

    def problem(index: int) -> str | None:
        try:
            check_bytes(images.file_bytes(index), thorough=thorough)
        except UnreadableImageError as error:
            return str(error)
        return None

    reasons = map_images(images, problem, "Checking images", progress)
    return [BadImage(i, images.image_id(i), reason) for i, reason in enumerate(reasons) if reason is not None]


def map_images(images: ImageSet, function: Callable[[int], T], title: str, progress: bool | None = None) -> list[T]:
    """`[function(0), ..., function(N - 1)]` for the indices of `images`, by several threads.

    Args:
        images: an image set.
        function: what to do with an index; decoding runs beside other threads.
        title: title of the progress bar.
        progress: show it; default: for more than 5000 images. Of several processes of one run the first shows it.
    """
    chunks = [range(start, min(start + CHUNK, len(images))) for start in range(0, len(images), CHUNK)]
    shown = len(images) > 5000 if progress is None else progress
    first_process = os.environ.get("RANK", "0") == "0"
    results: list[T] = []
    with (
        ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool,
        tqdm(total=len(images), desc=title, unit="image", disable=not (shown and first_process)) as bar,
    ):
        for part in pool.map(lambda chunk: [function(index) for index in chunk], chunks):
            results += part
            bar.update(len(part))
    return results


def check_bytes(data: bytes, *, thorough: bool = False) -> None:
    """Raise `UnreadableImageError` if `data` is not a whole image, see `find_bad_images`."""
    image = open_image(data)
    if thorough or image.format != "JPEG" or not data.rstrip(b"\0").endswith(JPEG_END):
        decode_pil(data)


def drop_bad_images(sets: Sequence[ImageSet], *, skip: bool) -> list[ImageSet]:
    """`sets` as they are if all images can be read; else an error that lists the others or, with `skip`, without them.

    Raises:
        UnreadableImageError: listing the first 20 unreadable images of all sets, and their number.
    """
    found = [find_bad_images(images) for images in sets]
    bad = [image for images in found for image in images]
    if not bad:
        return list(sets)
    message = bad_images_message(bad, sum(map(len, sets)))
    if not skip:
        raise UnreadableImageError(f"{message}\n{HINT}")
    logger.warning("Going on without these: %s", message)
    return [_without(images, drop) if drop else images for images, drop in zip(sets, found, strict=True)]


def _without(images: ImageSet, bad: Sequence[BadImage]) -> ImageSet:
    kept = images.select(np.setdiff1d(np.arange(len(images)), [image.index for image in bad]))
    lost = [images.class_names[label] for label in np.setdiff1d(images.labels, kept.labels)]
    if lost:
        logger.warning("No readable image is left of %d classes: %s", len(lost), listing(lost))
    return kept


def bad_images_message(bad: Sequence[BadImage], total: int) -> str:
    """A heading with the number of unreadable images, and a line for each of the first 20."""
    lines = [f"{len(bad)} of {total} images cannot be read:"]
    lines += [f"  {image.id} {image.reason}" for image in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  ... and {len(bad) - SHOWN} more")
    return "\n".join(lines)
