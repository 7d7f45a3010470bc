"""All decoders see one picture: whatever way it lies, whoever says so, in whatever mode and format it is."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idml_hf import IDMLImageProcessor
from idml_hf.data import as_image_set
from idml_hf.data.decoding import decode_pil, decode_tensor
from idml_hf.index.thumbnails import Thumbnails

PROCESSOR = IDMLImageProcessor(size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8})
MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "L", "1", "P", "P+", "RGBA", "LA", "RGB+", "L+", "I;16", "I;16+"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "LAB"],
}
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


def upright(pixels, orientation):
    """What EXIF says is to be shown, written out: the stored row 0 is the shown top, right, bottom or left."""
    h, w = pixels.shape[:2]
    shown = np.empty((w, h, 3) if orientation >= 5 else (h, w, 3), dtype=pixels.dtype)
    for y in range(h):
        for x in range(w):
            at = {
                1: (y, x),
                2: (y, w - 1 - x),
                3: (h - 1 - y, w - 1 - x),
                4: (h - 1 - y, x),
                5: (x, y),
                6: (x, h - 1 - y),
                7: (w - 1 - x, h - 1 - y),
                8: (w - 1 - x, y),
            }[orientation]
            shown[at] = pixels[y, x]
    return shown


def exif(orientation, order):
    """A TIFF header with one entry, in byte order `II` or `MM`."""
    end = "<" if order == b"II" else ">"
    return order + struct.pack(f"{end}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def segments(orientation, order, arrangement):
    """What stands between the start of a JPEG and its tables."""
    own = segment(0xE1, b"Exif\0\0" + exif(orientation, order))
    silent = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    jfif = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    return {
        "exif": own,
        "jfif exif": jfif + own,
        "xmp exif": silent + own,
        "exif xmp": own + silent,
        "jfif xmp comment exif": jfif + silent + segment(0xFE, b"a comment") + own,
        "icc exif": segment(0xE2, b"ICC_PROFILE\0\1\1" + b"\0" * 8) + own,
        "xmp only": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(orientation)),
        "broken exif": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "nothing": b"",
    }[arrangement]


ARRANGEMENTS = ["exif", "jfif exif", "xmp exif", "exif xmp", "jfif xmp comment exif", "icc exif", "xmp only"]
ARRANGEMENTS += ["broken exif", "nothing"]


def picture(mode, width, height, seed):
    """Something smooth enough for JPEG, different in every corner, and transparent in places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([255 * x / max(1, width - 1), 255 * y / max(1, height - 1), 128 + 0 * x], axis=2)
    pixels = (0.8 * ramp + 50 * rng.random(3)).clip(0, 255).astype(np.uint8)
    grey = pixels[..., :2].mean(2)
    if mode.startswith("I;16"):
        return PIL.Image.fromarray((grey * 257).astype(np.uint16))
    if mode == "I":
        return PIL.Image.fromarray((grey * 257).astype(np.int32))
    if mode == "F":
        return PIL.Image.fromarray((grey / 255).astype(np.float32))
    image = PIL.Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        image.putalpha(PIL.Image.fromarray((255 * (x + y) / (width + height)).astype(np.uint8)))
        return image.convert(mode)
    return image.quantize(16) if mode.startswith("P") else image.convert(mode.rstrip("+"))


def encoded(kind, mode, image, **options):
    if mode.endswith("+"):
        first = image.getpixel((0, 0))
        options["transparency"] = bytes(range(0, 256, 16)) if mode == "P+" else first
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_metadata(kind, data, orientation, order, arrangement):
    """The encoded image, and which orientation it now states."""
    if kind == "JPEG":
        stated = 1 if arrangement in ("broken exif", "nothing") else orientation
        return data[:2] + segments(orientation, order, arrangement) + data[2:], stated
    if kind == "PNG":
        body = exif(orientation, order)
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        return data[:33] + chunk + data[33:], orientation
    return data, 1


def shown(image):
    return np.asarray(image)


def by_all_decoders(data):
    """The same file by each way in, as (H, W, 3)."""
    images = as_image_set([data])
    return {
        "pil": shown(decode_pil(data)),
        "tensor": decode_tensor(data).permute(1, 2, 0).numpy(),
        "image set": shown(images.image(0)),
        "image set, tensor": images.tensor(0).permute(1, 2, 0).numpy(),
        "processor": PROCESSOR.process_image(PIL.Image.open(io.BytesIO(data)), do_convert_rgb=True)
        .permute(1, 2, 0)
        .numpy(),
        "picture in memory": shown(as_image_set([PIL.Image.open(io.BytesIO(data))]).image(0)),
    }


@settings(max_examples=100)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 8),
    st.sampled_from([b"II", b"MM"]),
    st.sampled_from(ARRANGEMENTS),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 3),
)
def test_every_decoder_shows_the_same_upright_picture(kind_and_mode, orientation, order, arrangement, size, seed):
    kind, mode = kind_and_mode
    plain = encoded(kind, mode, picture(mode, *size, seed))
    data, stated = with_metadata(kind, plain, orientation, order, arrangement)
    expected = upright(shown(decode_pil(plain)), stated)
    for name, pixels in by_all_decoders(data).items():
        assert pixels.shape == expected.shape, name
        assert (pixels == expected).all(), name
    thumbnail = shown(Thumbnails.of(as_image_set([data])).image(0))
    if kind == "JPEG":
        expected = shown(decode_pil(encoded("JPEG", "RGB", PIL.Image.fromarray(expected), quality=88)))
    assert thumbnail.shape == expected.shape and (thumbnail == expected).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("arrangement", ["exif", "xmp exif", "xmp only"])
def test_large_photographs_have_upright_small_copies(orientation, arrangement):
    plain = encoded("JPEG", "RGB", picture("RGB", 300, 200, 0))
    data, _ = with_metadata("JPEG", plain, orientation, b"MM", arrangement)
    thumbnail = Thumbnails.of(as_image_set([data])).image(0)
    small = PIL.Image.fromarray(upright(shown(decode_pil(plain)), orientation)).resize(thumbnail.size)
    assert max(thumbnail.size) == 96 and thumbnail.size == ((64, 96) if orientation >= 5 else (96, 64))
    assert np.abs(shown(thumbnail).astype(int) - shown(small)).mean() < 4


@given(st.integers(1, 8), st.sampled_from(["tiff", "webp"]), st.integers(0, 3))
def test_formats_whose_metadata_pillow_writes(orientation, kind, seed):
    image = picture("RGB", 9, 5, seed)
    metadata = PIL.Image.Exif()
    metadata[0x0112] = orientation
    data = encoded(kind.upper(), "RGB", image, exif=metadata)
    for name, pixels in by_all_decoders(data).items():
        assert (pixels == upright(shown(image), orientation)).all(), name


@given(st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]), st.booleans(), st.integers(1, 100), st.integers(1, 50))
def test_jpegs_of_any_making_have_the_same_pixels_both_ways(subsampling, progressive, quality, width):
    image = picture("RGB", width, 17, 0)
    data = encoded("JPEG", "RGB", image, subsampling=subsampling, progressive=progressive, quality=quality)
    assert (decode_tensor(data).permute(1, 2, 0).numpy() == shown(decode_pil(data))).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "RGBA", "1", "I;16", "I", "F", "CMYK", "LAB"])
def test_converted_twice_is_converted_once(mode):
    """What was turned upright is not turned again, whoever else applies the rule."""
    data = encoded("TIFF", mode, picture(mode, 7, 4, 1))
    image = decode_pil(data)
    assert (PROCESSOR.process_image(image, do_convert_rgb=True).permute(1, 2, 0).numpy() == shown(image)).all()
    turned = decode_pil(with_metadata("JPEG", encoded("JPEG", "RGB", picture("RGB", 7, 4, 1)), 6, b"MM", "exif")[0])
    assert turned.size == (4, 7) and as_image_set([turned]).image(0).size == (4, 7)
    assert PROCESSOR.process_image(turned, do_convert_rgb=True).shape == (3, 7, 4)


def test_what_transparency_hides_is_white_everywhere():
    for mode, hidden in (("RGB", (200, 10, 10)), ("L", 30), ("I;16", 30_000), ("1", 0)):
        image = PIL.Image.new("I;16" if mode == "I;16" else mode, (4, 3), hidden)
        data = encoded("PNG", mode, image, transparency=hidden)
        for name, pixels in by_all_decoders(data).items():
            assert (pixels == 255).all(), (mode, name)
        assert (shown(Thumbnails.of(as_image_set([data])).image(0)) == 255).all()


def test_deep_pictures_keep_their_contrast_on_every_way():
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    deep = {
        "float in 0..1": (ramp, "TIFF"),
        "float in 0..255": (255 * ramp, "TIFF"),
        "float in 0..65535": (65535 * ramp, "TIFF"),
        "16 bits": ((65535 * ramp).astype(np.uint16), "TIFF"),
        "16 bits, PNG": ((65535 * ramp).astype(np.uint16), "PNG"),
        "32 bits": ((2**31 - 1) * ramp.astype(np.float64)).astype(np.int32),
        "8 bits in 32": (255 * ramp).astype(np.int32),
    }
    for name, value in deep.items():
        array, kind = value if isinstance(value, tuple) else (value, "TIFF")
        image = PIL.Image.fromarray(array)
        for way, pixels in by_all_decoders(encoded(kind, image.mode, image)).items():
            assert np.abs(pixels[..., 0].astype(int) - 255 * ramp).max() <= 1.5, (name, way)
    for array in (ramp, (65535 * ramp).astype(np.uint16), (255 * ramp).astype(np.uint8), 255.0 * ramp):
        assert np.abs(as_image_set([array]).tensor(0)[0].numpy().astype(int) - 255 * ramp).max() <= 1.5
    short = PROCESSOR.process_image((65535 * ramp).astype(np.uint16), do_convert_rgb=True)
    assert torch.equal(short, PROCESSOR.process_image(((65535 * ramp).astype(np.uint16) >> 8).astype(np.uint8), True))


def test_fractions_that_are_not_finite_do_not_set_the_scale():
    array = np.array([[0.0, 1.0, np.inf, np.nan, -3.0, -np.inf]], dtype=np.float32)
    assert shown(decode_pil(encoded("TIFF", "F", PIL.Image.fromarray(array))))[0, :, 0].tolist() == [
        0,
        255,
        255,
        0,
        0,
        0,
    ]


def test_small_copies_carry_no_metadata():
    plain = encoded("JPEG", "RGB", picture("RGB", 20, 10, 0))
    secret = b"Exif\0\0" + exif(6, b"II") + b"GPS 52.5 13.4 by Jane"
    data = plain[:2] + segment(0xE1, secret) + segment(0xFE, b"Jane's camera") + plain[2:] + b"trailing Jane"
    metadata = PIL.Image.Exif()
    metadata[0x013B] = "Jane"
    lossless = [encoded(kind, "RGB", picture("RGB", 20, 10, 0), exif=metadata) for kind in ("PNG", "WEBP", "TIFF")]
    thumbnails = Thumbnails.of(as_image_set([data, *lossless]))
    assert all(b"Jane" not in thumbnail and b"Exif" not in thumbnail for thumbnail in thumbnails)
    assert thumbnails.image(0).size == (10, 20)


@settings(max_examples=5)
@given(st.tuples(st.integers(1, 3), st.integers(1000, 60_000)), st.booleans())
def test_a_line_of_pixels_does_not_fill_the_memory(size, upright_line):
    size = size[::-1] if upright_line else size
    processor = IDMLImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    image = PIL.Image.new("RGB", size, (10, 20, 30))
    values = processor([image, PIL.Image.new("RGB", (30, 30), (10, 20, 30))], return_tensors="pt").pixel_values
    assert values.shape == (2, 3, 224, 224) and torch.allclose(values[0], values[1], atol=1e-5)


def test_the_middle_of_a_long_picture_is_what_a_centre_crop_sees():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12 * 40, 3), dtype=np.uint8)
    processor = IDMLImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 14, "width": 14})
    whole = processor(pixels, return_tensors="pt").pixel_values
    middle = processor(pixels[:, 12 * 16 : 12 * 24], return_tensors="pt").pixel_values
    assert torch.allclose(whole, middle, atol=1e-5)
