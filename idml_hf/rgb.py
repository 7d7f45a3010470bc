"""Turn a picture or an array of any kind into upright 8-bit RGB: the one rule for all ways in.

This file travels with the image processor as remote code, so it imports nothing of the package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def orientation(image: PIL.Image.Image) -> int:
    """How the picture lies, from 1, upright, to 8, as EXIF numbers it; 1 where its metadata cannot be read.

    Pillow looks for it in all EXIF segments, in either byte order, and in XMP.
    """
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # broken metadata are no reason to lose a picture
        return 1


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Any PIL mode to upright RGB: EXIF orientation applied, transparency over white, deep pixels brought to 8 bits.

    Transparency goes over white since that is what image processors of transformers do. The result has no metadata, so
    that nothing turns it again, and nothing of them is saved with it.

    Example:
        >>> to_rgb(PIL.Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    image.load()  # TIFF turns itself, and forgets its orientation, when it is decoded
    turn = _TURNS.get(orientation(image))
    if image.mode.startswith(("I", "F")):
        image = _deep_to_grey(image)
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return image


def to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Pixel values of any type as uint8, by their largest value.

    Fractions up to 1 are shares of white; whole numbers, and fractions beyond 1, have 8 bits if they go up to 255, and
    16 bits if they go up to 65535, of which the higher 8 are kept.

    Raises:
        ValueError: for negative values, values beyond 65535, or values that are not finite.

    Example:
        >>> to_eight_bits(np.array([0.0, 0.5, 1.0])).tolist(), to_eight_bits(np.array([0, 256, 65535])).tolist()
        ([0, 128, 255], [0, 1, 255])
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels * np.uint8(255)
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"pixels must be numbers, not {pixels.dtype}")
    low, high = (pixels.min(), pixels.max()) if pixels.size else (0, 0)
    if not (low >= 0 and high <= 65535):
        raise ValueError(f"pixel values from {low} to {high}: expected 0 to 1, 0 to 255, or 0 to 65535")
    if pixels.dtype.kind in "iu":
        return (pixels >> 8 if high > 255 else pixels).astype(np.uint8)
    scale = 255 if high <= 1 else 1 if high <= 255 else 255 / 65535
    return np.floor(pixels.astype(np.float64) * scale + 0.5).astype(np.uint8)


def array_to_rgb(pixels: Any) -> np.ndarray:
    """A picture as array or tensor, in whichever order of axes, as uint8 (H, W, 3).

    Args:
        pixels: (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, the fourth being opacity; values as for
            `to_eight_bits`. Where both first and last axis could be the channels, a tensor has them first, an array
            last.

    Raises:
        ValueError: for other shapes, or values that are none of pixels.
    """
    is_tensor = hasattr(pixels, "detach")
    if is_tensor:
        pixels = pixels.detach().cpu()
        pixels = pixels.float() if pixels.is_floating_point() else pixels  # NumPy has no bfloat16
    array = np.asarray(pixels)
    if array.ndim == 3:
        first, last = array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4)
        if first and (is_tensor or not last):
            array = array.transpose(1, 2, 0)
    elif array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"a picture has the shape (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, not {array.shape}"
        )
    array = to_eight_bits(array)
    if array.shape[2] == 4:
        return np.asarray(to_rgb(PIL.Image.fromarray(np.ascontiguousarray(array), "RGBA")))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _deep_to_grey(image: PIL.Image.Image) -> PIL.Image.Image:
    """Whole numbers of 16 or 32 bits, or fractions, to 8-bit grey; NaN and what is negative is black."""
    grey, transparent = np.asarray(image), image.info.get("transparency")
    if grey.dtype.kind == "f":
        largest = grey.max(where=np.isfinite(grey), initial=0)
        pixels = to_eight_bits(np.nan_to_num(grey, posinf=largest).clip(0, min(largest, 65535)))
    else:
        grey = grey.clip(0, None)
        whole = grey.astype(np.int64) >> 23 if grey.max(initial=0) > 65535 else to_eight_bits(grey)
        pixels = whole.astype(np.uint8)
    if isinstance(transparent, int):
        pixels = np.where(grey == transparent, np.uint8(255), pixels)
    return PIL.Image.fromarray(pixels)


def _lab_to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None  # only in-place conversion gives nothing back
    return converted


__all__ = ["array_to_rgb", "orientation", "to_eight_bits", "to_rgb"]
