"""Decoding: the fast path gives the pixels of Pillow, every mode becomes upright RGB, broken data are refused."""

from __future__ import annotations

import io

import dataset_replicas as replicas
import numpy as np
import PIL.Image
import pytest

from idml_hf.data import UnreadableImageError
from idml_hf.data.decoding import decode_pil, decode_tensor


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(kind, **options):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encode(replicas.picture(0, (20, 10)), kind, exif=exif, **options)


PICTURE = replicas.picture(1, (33, 21))
ENCODED = {
    "jpeg": encode(PICTURE, "JPEG", quality=80),
    "jpeg 4:4:4": encode(PICTURE, "JPEG", subsampling=0),
    "progressive": encode(PICTURE, "JPEG", progressive=True),
    "grey jpeg": encode(PICTURE.convert("L"), "JPEG"),
    "cmyk jpeg": encode(PICTURE.convert("CMYK"), "JPEG"),
    "rotated jpeg": rotated("JPEG"),
    "png": encode(PICTURE, "PNG"),
    "palette png": encode(PICTURE.quantize(8), "PNG"),
    "rotated png": rotated("PNG"),
    "lossless webp": encode(PICTURE, "WEBP", lossless=True),
    "rotated webp": rotated("WEBP", lossless=True),
    "lossy webp": encode(PICTURE, "WEBP"),
    "transparent webp": encode(PICTURE.convert("RGBA").rotate(30), "WEBP", lossless=True, exact=True),
    "gif": encode(PICTURE, "GIF"),
    "bmp": encode(PICTURE, "BMP"),
    "tiff": encode(PICTURE, "TIFF"),
}


@pytest.mark.parametrize("data", ENCODED.values(), ids=ENCODED.keys())
def test_tensor_equals_picture(data):
    tensor = decode_tensor(data)
    assert (tensor.permute(1, 2, 0).numpy() == np.asarray(decode_pil(data))).all()


@pytest.mark.parametrize("name", ["png", "lossless webp", "bmp", "tiff"])
def test_lossless_formats_give_the_picture_back(name):
    assert (np.asarray(decode_pil(ENCODED[name])) == np.asarray(PICTURE)).all()


@pytest.mark.parametrize("name", ["rotated jpeg", "rotated png", "rotated webp"])
def test_exif_orientation_is_applied(name):
    assert decode_pil(ENCODED[name]).size == (10, 20)
    assert decode_tensor(ENCODED[name]).shape == (3, 20, 10)


def test_transparency_goes_over_white():
    image = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert np.asarray(decode_pil(encode(image, "PNG"))).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    palette = PIL.Image.new("P", (1, 1), 0)
    assert decode_pil(encode(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_cut():
    deep = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    assert np.asarray(decode_pil(encode(PIL.Image.fromarray(deep), "PNG")))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "lossless webp", "lossy webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_off_data_are_refused_both_ways(name, share):
    data = ENCODED[name][: int(share * len(ENCODED[name]))]
    for decode in (decode_pil, decode_tensor):
        with pytest.raises(UnreadableImageError):
            decode(data)


def test_large_lossless_webp_meets_the_bomb_check(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2**18)
    data = encode(PIL.Image.new("RGB", (1100, 1000)), "WEBP", lossless=True)
    with pytest.raises(UnreadableImageError, match="bomb"):
        decode_tensor(data)
