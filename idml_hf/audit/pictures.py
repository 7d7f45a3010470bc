"""Read each picture once: can it be read, how large is it, does it show anything, and what does it look like small?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import PIL.Image

from idml_hf.data import ImageSet, UnreadableImageError
from idml_hf.data.unreadable_images import map_images

SIDE = 32  # of the small picture
SMALLEST_SIDE = 24  # pixels; below, a picture is tiny
LEAST_CONTRAST = 2.0  # standard deviation of grey values of 0 to 255; below, a picture is blank


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is seen of N pictures.

    Args:
        problems: Why each cannot be read, or None.
        digests: Hash of the pixels and the size, empty where a picture cannot be read.
        shorter_side: int64 `(N,)`, pixels.
        contrast: float64 `(N,)`, standard deviation of the grey values, 0 to 127.5.
        small: uint8 `(N, 32, 32, 3)`, both sides scaled to the same length.
    """

    problems: list[str | None]
    digests: list[bytes]
    shorter_side: np.ndarray
    contrast: np.ndarray
    small: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """Which can be read, bool `(N,)`."""
        return np.array([problem is None for problem in self.problems], dtype=bool)


def look_at(images: ImageSet, progress: bool | None = None) -> Pictures:
    """Read all pictures, by several threads.

    Args:
        images: The pictures.
        progress: Show a progress bar; default: for more than 5000 images.
    """
    small = np.zeros((len(images), SIDE, SIDE, 3), dtype=np.uint8)

    def look(index: int) -> tuple[str | None, bytes, int, float]:
        try:
            picture = images.image(index)
        except UnreadableImageError as error:
            return str(error).removeprefix(images.image_id(index)).strip(), b"", 0, 0.0
        grey = picture.convert("L")
        small[index] = np.asarray(picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX))
        digest = hashlib.blake2b(picture.tobytes(), digest_size=16, salt=str(picture.size).encode()[:16]).digest()
        return None, digest, min(picture.size), float(np.asarray(grey, dtype=np.float32).std())

    seen = map_images(images, look, "Reading pictures", progress)
    problems, digests, sides, contrast = (list(part) for part in zip(*seen, strict=True)) if seen else ([], [], [], [])
    return Pictures(problems, digests, np.array(sides, dtype=np.int64), np.array(contrast), small)


__all__ = ["LEAST_CONTRAST", "SMALLEST_SIDE", "Pictures", "look_at"]
