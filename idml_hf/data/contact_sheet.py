"""A picture of a data set: a few classes a split, a few images a class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps

from .decoding import UnreadableImageError
from .image_set import ImageSet

TEXT_WIDTH, TEXT_SIZE, GAP = 220, 14, 4


def contact_sheet(
    splits: Mapping[str, ImageSet], *, classes: int = 6, images_per_class: int = 8, size: int = 96
) -> PIL.Image.Image:
    """A row for each of some classes, evenly spread over each split, with the name on the left.

    Args:
        splits: split -> images.
        classes: rows a split.
        images_per_class: columns.
        size: side of a thumbnail in pixels.

    Returns:
        an RGB image; images that cannot be read are left blank.
    """
    rows = [(split, images, label) for split, images in splits.items() for label in _spread(images, classes)]
    width = TEXT_WIDTH + images_per_class * (size + GAP)
    sheet = PIL.Image.new("RGB", (width, max(1, len(rows)) * (size + GAP) + GAP), "white")
    draw, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(TEXT_SIZE)
    for row, (split, images, label) in enumerate(rows):
        top = GAP + row * (size + GAP)
        name = images.class_names[label] if images.num_classes else ""
        draw.text((GAP, top), f"{split}\n{name[:28]}", fill="black", font=font)
        for column, index in enumerate(np.flatnonzero(images.labels == label)[:images_per_class]):
            try:
                thumbnail = PIL.ImageOps.contain(images.image(index), (size, size))
            except UnreadableImageError:
                continue
            sheet.paste(thumbnail, (TEXT_WIDTH + column * (size + GAP), top))
    return sheet


def _spread(images: ImageSet, number: int) -> np.ndarray:
    present = np.unique(images.labels)
    return present[np.unique(np.linspace(0, len(present) - 1, min(number, len(present))).astype(np.int64))]
