"""The one opener of images: from a file or its bytes to RGB pixels, as a PIL image or as a uint8 tensor.

All ways in pass here - data sets, queries, uploads, thumbnails - so the formats that may be tried, and how large a
file or a picture may be, are said here alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import stat
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import torch
from torchvision.io import ImageReadMode, decode_jpeg, decode_webp

from idml_hf.rgb import orientation, to_rgb

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: one takes gigabytes, and no model looks at so many pixels."""
MAX_FILE_BYTES = 2**29
"""Larger files are refused before they are read: no picture of `MAX_PIXELS` takes more."""
_PEEKED_BYTES = 2**24  # from here on the first bytes must be those of an image before the rest is read
_MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # a progressive JPEG has some ten scans of all its pixels

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What Pillow may try, whatever a file is called: its other formats start programs (EPS), or are hardly ever used."""
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
"""Endings of the names of files that should hold an image."""
HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
"""Endings of names of images that need the extra `heif`."""

if importlib.util.find_spec("pillow_heif") is not None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS += ("HEIF",)
    SUFFIXES |= HEIF_SUFFIXES

_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"RIFF",
    b"GIF8",
    b"BM",
    b"II",
    b"MM",
    b"P1",
    b"P2",
    b"P3",
    b"P4",
    b"P5",
    b"P6",
)
NETPBM = re.compile(rb"P([56]) (\d+) (\d+) 255\n")
"""Header of an image as `encode_pixels` writes it."""


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be decoded in full."""


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file.

    Raises:
        UnreadableImageError: if it cannot be opened, is no regular file (a pipe, a device, a folder), or is larger
            than `MAX_FILE_BYTES`.
    """
    try:
        # without O_NONBLOCK, opening a pipe waits for somebody to write
        descriptor = os.open(_existing(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise UnreadableImageError(f"is {_kind(state.st_mode)}, not an image")
            if state.st_size > MAX_FILE_BYTES:
                raise UnreadableImageError(
                    f"has {state.st_size:,} bytes, and at most {MAX_FILE_BYTES // 2**20} MiB are read"
                )
            if state.st_size > _PEEKED_BYTES and not _may_be_image(file.peek(16)):
                raise UnreadableImageError("is not an image in a known format")
            return file.read(state.st_size)
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableImageError):
            raise
        raise UnreadableImageError(f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error


def read_bytes(image: dict[str, Any] | None) -> bytes:
    """The file content of an undecoded `datasets.Image` value, `{"bytes": ..., "path": ...}`.

    Raises:
        UnreadableImageError: if there is none, or as for `read_file`.
    """
    image = image or {}
    if image.get("bytes") is not None:
        return image["bytes"]
    if image.get("path") is None:
        raise UnreadableImageError("has no image")
    return read_file(image["path"])


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as text that any file and terminal takes: bytes of its name that are no UTF-8 become `\xNN`.

    `read_file` finds the file by this text, too.

    Example:
        >>> print(path_text(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")))
        caf\xe9.jpg
    """
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_image(data: bytes) -> PIL.ImageFile.ImageFile:
    """Parse the header only.

    Raises:
        UnreadableImageError: for an empty file, a format that is none of `FORMATS`, more than `MAX_PIXELS`, or more
            pixels than Pillow's limit for decompression bombs.
    """
    if not data:
        raise UnreadableImageError("is empty (0 bytes)")
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImageError("is not an image in a known format") from error
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"is too large, possibly a decompression bomb ({error})") from error
    except Exception as error:
        raise UnreadableImageError(f"has a broken header ({_one_line(error)})") from error
    check_size(*image.size)
    is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and data.count(b"\xff\xda") * image.width * image.height > _MAX_SCANNED_PIXELS:
        raise UnreadableImageError("has more scans than a picture of its size needs, possibly a decompression bomb")
    return image


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Refuse a picture of more than `most` pixels.

    Raises:
        UnreadableImageError: with its size.
    """
    if width * height > most:
        raise UnreadableImageError(
            f"has {width} x {height} pixels: at most {most // 1_000_000} million are read, make it smaller first"
        )


def decode_pil(data: bytes) -> PIL.Image.Image:
    """Decode to an upright RGB image, see [`idml_hf.rgb.to_rgb`].

    Raises:
        UnreadableImageError: if the data are broken or end too early.
    """
    image = open_image(data)
    try:
        return to_rgb(image)
    except Exception as error:
        raise UnreadableImageError(f"cannot be decoded ({_one_line(error)})") from error


def decode_tensor(data: bytes) -> torch.Tensor:
    """Decode to an upright uint8 tensor (3, H, W): the pixels of `decode_pil`, sooner for JPEG and lossless WebP.

    Raises:
        UnreadableImageError: if the data are broken or end too early.
    """
    with contextlib.suppress(RuntimeError):  # Pillow, below, says in words what is wrong, or copes with it
        if _is_small_lossless_webp(data):
            return decode_webp(_buffer(data), mode=ImageReadMode.RGB)
        header = NETPBM.match(data)
        if header is not None:
            return _decode_netpbm(data, header)
        image = open_image(data)
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            return _turned(decode_jpeg(_buffer(data), mode=ImageReadMode.RGB), orientation(image))
    return torch.from_numpy(np.array(decode_pil(data))).permute(2, 0, 1)


def encode_pixels(pixels: np.ndarray) -> bytes:
    """uint8 pixels (H, W) or (H, W, 3) as netpbm: a header and the pixels, which costs nothing to write and read."""
    height, width = pixels.shape[:2]
    kind = b"P5" if pixels.ndim == 2 else b"P6"
    return b"%s %d %d 255\n" % (kind, width, height) + np.ascontiguousarray(pixels).tobytes()


def _decode_netpbm(data: bytes, header: re.Match[bytes]) -> torch.Tensor:
    channels, width, height = (3 if header[1] == b"6" else 1), int(header[2]), int(header[3])
    check_size(width, height)
    if not 0 < channels * width * height <= len(data) - header.end():
        raise RuntimeError("the pixels are not all there")
    pixels = np.frombuffer(data, dtype=np.uint8, count=channels * width * height, offset=header.end())
    return torch.from_numpy(pixels.reshape(height, width, channels).copy()).permute(2, 0, 1).expand(3, -1, -1)


def _turned(pixels: torch.Tensor, turn: int) -> torch.Tensor:
    """`pixels` (3, H, W) as EXIF's orientation `turn` says that they are to be shown."""
    if turn >= 5:
        pixels = pixels.transpose(-1, -2)
    axes = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(turn)
    return pixels.flip(axes) if axes else pixels


def _buffer(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _is_small_lossless_webp(data: bytes) -> bool:
    """Whether this is one opaque lossless picture without metadata, for which Pillow's animation decoder is slow."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or len(data) < 25:
        return False
    bits = int.from_bytes(data[21:25], "little")
    width, height, transparent = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
    return not transparent and width * height <= 2**20


def _may_be_image(start: bytes) -> bool:
    return start.startswith(_SIGNATURES) or start[4:8] == b"ftyp"


def _existing(path: str | os.PathLike[str]) -> str | bytes:
    """The path itself or, where `path_text` has changed it, what it stood for."""
    text = os.fspath(path)
    if "\\x" in text and not os.path.lexists(text):
        return re.sub(rb"\\x([89a-f][0-9a-f])", lambda code: bytes([int(code[1], 16)]), os.fsencode(text))
    return text


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


__all__ = [
    "FORMATS",
    "HEIF_SUFFIXES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "NETPBM",
    "SUFFIXES",
    "UnreadableImageError",
    "check_size",
    "decode_pil",
    "decode_tensor",
    "encode_pixels",
    "open_image",
    "orientation",
    "path_text",
    "read_bytes",
    "read_file",
    "to_rgb",
]
