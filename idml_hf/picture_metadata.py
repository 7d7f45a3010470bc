"""Pictures that hold pixels and nothing else: no place where they were taken, no camera, no bytes after their end."""

from __future__ import annotations

import io
import struct

import PIL.Image
import PIL.ImageOps

_FORMATS = ("JPEG", "PNG", "WEBP")
# what decoding needs, and the colour space
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs"})
_WEBP_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH"})
_JPEG_END, _JPEG_SCAN, _JPEG_JFIF, _JPEG_ADOBE = 0xD9, 0xDA, 0xE0, 0xEE
# frames, tables of codes and quantisation, lines, restarts, scans
_JPEG_TABLES = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD})
_JFIF_LENGTH, _ADOBE_LENGTH = 16, 14


def encode_picture(image: PIL.Image.Image, format: str = "JPEG") -> bytes:
    """A picture's pixels as a file without metadata.

    Args:
        image: What to encode; what Pillow knows of it beside its pixels is left out.
        format: `"JPEG"`, or `"PNG"` or `"WEBP"` without loss.

    Example:
        >>> is_plain(encode_picture(PIL.Image.new("RGB", (8, 8))))
        True
    """
    image = image.copy()
    image.info = {}  # Pillow would write comments and colour profiles that it has read
    buffer = io.BytesIO()
    if format == "JPEG":
        image.save(buffer, "JPEG", quality=88)
    else:
        image.save(buffer, format, **({"lossless": True} if format == "WEBP" else {}))
    return buffer.getvalue()


def without_metadata(data: bytes) -> bytes:
    """A picture as it is if it holds pixels only; else its pixels encoded anew, upright as the metadata said.

    Raises:
        ValueError: for what is no JPEG, PNG or WebP, or cannot be decoded.
    """
    if is_plain(data):
        return data
    try:
        with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            format = str(image.format)
            upright = PIL.ImageOps.exif_transpose(image)
            return encode_picture(upright, format)
    except Exception as error:
        raise ValueError(f"is no picture that can be read ({error})") from error


def is_plain(data: bytes) -> bool:
    """Whether a JPEG, PNG or WebP holds pixels only; False for anything else."""
    try:
        if data[:2] == b"\xff\xd8":
            return _is_plain_jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _is_plain_png(data)
        return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and _is_plain_webp(data)
    except (IndexError, ValueError, struct.error):
        return False


def _is_plain_png(data: bytes) -> bool:
    at = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in _PNG_CHUNKS:
            return False
        at += length + 12
        if kind == b"IEND":
            return length == 0 and at == len(data)


def _is_plain_webp(data: bytes) -> bool:
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        return False
    at = 12
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind not in _WEBP_CHUNKS:
            return False
        at += 8 + length + length % 2
    return at == len(data)


def _is_plain_jpeg(data: bytes) -> bool:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _JPEG_END:
            return at + 2 == len(data)
        (length,) = struct.unpack_from(">H", data, at + 2)
        if not (marker in _JPEG_TABLES or _is_needed(marker, length, data[at + 4 : at + 9])):
            return False
        at += 2 + length
        if marker == _JPEG_SCAN:
            # to the next marker that is neither an escaped byte nor a restart
            while data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
                at = data.index(b"\xff", at + 1)
    return False


def _is_needed(marker: int, length: int, start: bytes) -> bool:
    """Whether an application's segment is one that decoders need, and of the length that it then has."""
    if marker == _JPEG_JFIF:
        return start == b"JFIF\0" and length == _JFIF_LENGTH
    return marker == _JPEG_ADOBE and start == b"Adobe" and length == _ADOBE_LENGTH


__all__ = ["encode_picture", "is_plain", "without_metadata"]
