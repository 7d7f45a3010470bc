"""Small copies of the gallery's images, so that matches can be shown wherever the index goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from idml_hf.data import ImageSet
from idml_hf.data.decoding import decode_pil, open_image, to_rgb
from idml_hf.picture_metadata import encode_picture

THUMBNAIL_SIZE = 96


@dataclass(frozen=True)
class Thumbnails:
    """Encoded images end to end in one array, which a file can be mapped to.

    Args:
        content: uint8 (bytes of all images,).
        offsets: int64 (N + 1,): image i is `content[offsets[i] : offsets[i + 1]]`.
    """

    content: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_bytes(cls, encoded: Sequence[bytes]) -> Thumbnails:
        """Small copies that are encoded already."""
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(data) for data in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    @classmethod
    def of(cls, images: ImageSet | Sequence[Any], size: int = THUMBNAIL_SIZE) -> Thumbnails:
        """Thumbnails of all images, at most `size` pixels wide and high.

        Raises:
            UnreadableImageError: if an image cannot be decoded.
        """
        # decoding lets go of the interpreter lock
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return cls.from_bytes(list(pool.map(lambda i: _thumbnail(images, i, size), range(len(images)))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> bytes:
        """The encoded image: JPEG, or lossless WebP of a picture that was as small."""
        return self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def image(self, index: int) -> PIL.Image.Image:
        """One of them, decoded."""
        return decode_pil(self[index])

    def select(self, indices: np.ndarray) -> Thumbnails:
        """Those of the images at `indices`."""
        return Thumbnails.from_bytes([self[index] for index in indices])

    def concatenate(self, other: Thumbnails) -> Thumbnails:
        """These followed by others."""
        return Thumbnails(
            np.concatenate([self.content, other.content]),
            np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]]),
        )


def _thumbnail(images: ImageSet | Sequence[Any], index: int, size: int) -> bytes:
    """A small copy, upright and without metadata: those of a photograph may say who took it, and where."""
    lossless = False
    if isinstance(images, ImageSet):
        try:
            file = open_image(images.file_bytes(index))
            # what is small and exact stays exact
            lossless = max(file.size) <= size and file.format not in ("JPEG", "MPO")
            # a JPEG is decoded at a fraction of its size, several times faster
            file.draft("RGB", (2 * size, 2 * size))
            image = to_rgb(file)
        except Exception:
            # the slow way copes with it, or says which image it is
            image = images.image(index)
    else:
        image = to_rgb(images[index])
    image.thumbnail((size, size))
    return encode_picture(image, "WEBP" if lossless else "JPEG")


__all__ = ["THUMBNAIL_SIZE", "Thumbnails"]
