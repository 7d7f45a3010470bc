"""From the bytes of an image file to RGB pixels, as a PIL image or as a uint8 tensor, at full resolution."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from torchvision.io import ImageReadMode, decode_jpeg, decode_webp


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be decoded in full."""


def read_bytes(image: dict[str, Any]) -> bytes:
    """The file content of an undecoded `datasets.Image` value, `{"bytes": ..., "path": ...}`."""
    if image["bytes"] is not None:
        return image["bytes"]
    try:
        with open(image["path"], "rb") as file:
            return file.read()
    except OSError as error:
        raise UnreadableImageError(f"cannot be opened ({error.strerror or error})") from error


def open_image(data: bytes) -> PIL.Image.Image:
    """Parse the header only.

    Raises:
        UnreadableImageError: for an empty file, an unknown format, or more pixels than Pillow's limit
            for decompression bombs.
    """
    if not data:
        raise UnreadableImageError("is empty (0 bytes)")
    try:
        return PIL.Image.open(io.BytesIO(data))
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImageError("is not an image in a known format") from error
    except PIL.Image.DecompressionBombError as error:
        raise UnreadableImageError(f"is too large, possibly a decompression bomb ({error})") from error
    except Exception as error:
        raise UnreadableImageError(f"has a broken header ({error})") from error


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Any PIL mode to upright RGB: EXIF orientation applied, transparency over white, 16-bit grey scaled to 8 bits.

    Transparency goes over white since that is what image processors of transformers do at inference.
    """
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        shift = 8 if grey.size and grey.max() > 255 else 0
        image = PIL.Image.fromarray((grey.astype(np.int64) >> shift).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return image.convert("RGB")


def decode_pil(data: bytes) -> PIL.Image.Image:
    """Decode to an upright RGB image.

    Raises:
        UnreadableImageError: if the data are broken or end too early.
    """
    image = open_image(data)
    try:
        return to_rgb(image)
    except Exception as error:
        raise UnreadableImageError(f"cannot be decoded ({error})") from error


def decode_tensor(data: bytes) -> torch.Tensor:
    """Decode to an upright uint8 tensor (3, H, W): the pixels of `decode_pil`, sooner for JPEG and lossless WebP.

    Raises:
        UnreadableImageError: if the data are broken or end too early.
    """
    with contextlib.suppress(RuntimeError):  # Pillow, below, says in words what is wrong, or copes with it
        if _is_small_lossless_webp(data):
            return decode_webp(_buffer(data), mode=ImageReadMode.RGB)
        image = open_image(data)
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            return decode_jpeg(_buffer(data), mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return torch.from_numpy(np.array(decode_pil(data))).permute(2, 0, 1)


def _buffer(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _is_small_lossless_webp(data: bytes) -> bool:
    """Whether this is one opaque lossless picture without metadata, for which Pillow's animation decoder is slow."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or len(data) < 25:
        return False
    bits = int.from_bytes(data[21:25], "little")
    width, height, transparent = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
    return not transparent and width * height <= 2**20
