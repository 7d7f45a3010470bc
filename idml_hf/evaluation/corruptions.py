"""Images made harder by known amounts: an uncertainty that means something rises with the amount.

Every corruption has six severities, 0 (untouched) to 5, relative to the size of the image. What is random (where to
occlude or crop, the noise, the partner to mix with) depends on (seed, corruption, index) alone and is shared by
the severities of an image, so that a stronger corruption hides all that a weaker one hides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from scipy.stats import rankdata

from idml_hf.errors import one_of

CORRUPTIONS = ("blur", "noise", "occlusion", "downscaling", "mixing")
SEVERITIES = (0, 1, 2, 3, 4, 5)
UNSEEN = ("blur", "noise", "occlusion")
"""Those that training never degrades images by, nor by anything akin (`idml_hf.training.degradation`)."""


class CorruptedImages:
    """A view of images, each corrupted when it is asked for.

    Args:
        images: Sequence of PIL images.
        corruption: A name of `CORRUPTIONS`, or `"crop"` (one random crop of half the width and height).
        severity: 0 to 5; a crop has 0 and 1.
        seed: Seed of what is random.
        indices: Which of the images to view; by default all.
        side: Shrink the image to this shorter side first: the model's own shrinking would undo the corruption.

    Example:
        >>> images = [Image.new("RGB", (40, 30), "white")] * 2
        >>> CorruptedImages(images, "crop", 1)[0].size, CorruptedImages(images, "blur", 3, side=15)[0].size
        ((20, 15), (20, 15))
    """

    def __init__(
        self,
        images: Sequence[Any],
        corruption: str,
        severity: int,
        seed: int = 0,
        indices: Any = None,
        side: int | None = None,
    ) -> None:
        one_of("corruption", corruption, (*CORRUPTIONS, "crop"))
        if severity not in (SEVERITIES if corruption != "crop" else (0, 1)):
            raise ValueError(f"severity {severity} of {corruption!r} does not exist")
        if corruption == "mixing" and len(images) < 2:
            raise ValueError("mixing needs at least two images")
        self.images, self.corruption, self.severity, self.seed, self.side = images, corruption, severity, seed, side
        self.indices = np.arange(len(images)) if indices is None else np.asarray(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Image.Image:
        index = int(self.indices[position])
        image = self._load(index)
        if self.severity == 0:
            return image
        # The name as bytes, because hash() of a string differs between processes.
        rng = np.random.default_rng([self.seed, index, *self.corruption.encode()])
        if self.corruption == "mixing":
            partner = (index + 1 + int(rng.integers(len(self.images) - 1))) % len(self.images)
            return Image.blend(image, self._load(partner).resize(image.size), 0.1 * self.severity)
        return _ALONE[self.corruption](image, self.severity, rng)

    def _load(self, index: int) -> Image.Image:
        image = self.images[index].convert("RGB")
        if self.side is not None and min(image.size) > self.side:
            scale = self.side / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        return image


class PartlyDegradedImages:
    """A view of images of which half, drawn at random, are degraded by an unseen corruption of random severity.

    Args:
        images: Sequence of PIL images.
        seed: Seed of all that is random.
        indices: Which of the images to view.
        side: As for `CorruptedImages`.
        corruptions: Which corruptions to draw from.

    Attributes:
        severity: `(n,)` 0 for an image that is left as it is, else 1 to 5.

    Example:
        >>> view = PartlyDegradedImages([Image.new("RGB", (40, 30), "white")] * 4, 0, [0, 1, 2, 3])
        >>> int((view.severity > 0).sum()), view[0].size
        (2, (40, 30))
    """

    def __init__(
        self,
        images: Sequence[Any],
        seed: int,
        indices: Any,
        side: int | None = None,
        corruptions: Sequence[str] = UNSEEN,
    ) -> None:
        self.indices = np.asarray(indices)
        number = len(self.indices)
        rng = np.random.default_rng([seed, *b"degraded"])
        self.severity = rng.integers(1, len(SEVERITIES), number)
        self.severity[rng.permutation(number)[: number - number // 2]] = 0
        self.kind = rng.integers(len(corruptions), size=number)
        self._views = {
            (kind, severity): CorruptedImages(images, name, severity, seed, self.indices, side)
            for kind, name in enumerate(corruptions)
            for severity in SEVERITIES
        }

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Image.Image:
        return self._views[int(self.kind[position]), int(self.severity[position])][position]


def blur(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """Gaussian blur with a standard deviation of 1.2 % of the shorter side per severity."""
    return image.filter(ImageFilter.GaussianBlur(0.012 * severity * min(image.size)))


def noise(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """Gaussian pixel noise with a standard deviation of 8 % of full scale per severity."""
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels + 0.08 * 255 * severity * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def occlusion(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """A box of the image's mean colour over 10 % of the area per severity."""
    pixels = np.array(image)
    top, left, height, width = _box(image, (0.1 * severity) ** 0.5, rng)
    pixels[top : top + height, left : left + width] = pixels.mean(axis=(0, 1)).round()
    return Image.fromarray(pixels)


def downscaling(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """Shrunk by 1 + severity and enlarged again."""
    small = [max(1, round(side / (1 + severity))) for side in image.size]
    return image.resize((small[0], small[1]), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)


def crop(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """A random part of the image with half its width and height; the only severity is 1."""
    top, left, height, width = _box(image, 0.5**severity, rng)
    return image.crop((left, top, left + width, top + height))


def _box(image: Image.Image, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random box; with the same generator a larger share contains a smaller one."""
    height, width = (max(1, round(share * side)) for side in (image.height, image.width))
    down, right = rng.random(2)
    return int(down * (image.height - height)), int(right * (image.width - width)), height, width


# Those that need one image only; mixing needs a second one and is done by `CorruptedImages`.
_ALONE: dict[str, Callable[[Image.Image, int, np.random.Generator], Image.Image]] = {
    "blur": blur,
    "noise": noise,
    "occlusion": occlusion,
    "downscaling": downscaling,
    "crop": crop,
}


def severity_spearman(values: np.ndarray) -> float:
    """Mean over images of the rank correlation between uncertainty and severity.

    Args:
        values: `(N, S)` uncertainty of N images at S rising severities. An image whose values are all alike counts 0.

    Returns:
        A number in [-1, 1]; 1 if the uncertainty of every image rises with every step.

    Example:
        >>> round(severity_spearman(np.array([[1, 2, 3], [1, 3, 2], [5, 5, 5]])), 6)
        0.5
    """
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    steps = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    norms = np.linalg.norm(ranks, axis=1) * np.linalg.norm(steps)
    return float(np.mean(np.divide(ranks @ steps, norms, out=np.zeros(len(ranks)), where=norms > 0)))
