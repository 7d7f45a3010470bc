"""Small images in memory: the right pixels, the usual augmentation, the same again on request."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from idml_hf.data import Draw, ImageSet, load_images
from idml_hf.data.small_images import SmallImages, read_pixels, shift_and_flip


def arrays(number=12, colour=True, size=(6, 9)):
    shape = (number, *size, 3) if colour else (number, *size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return ImageSet.from_arrays(pixels, np.arange(number) % 3, ["a", "b", "c"], "test")


@pytest.mark.parametrize("colour", [True, False])
def test_pixels_are_those_of_single_images(colour):
    images = arrays(colour=colour).select([3, 0, 7, 7])
    pixels = read_pixels(images)
    assert pixels.shape == (4, 3 if colour else 1, 6, 9) and pixels.dtype == torch.uint8
    for i in range(4):
        assert torch.equal(pixels[i].expand(3, -1, -1), images.tensor(i))


def test_other_formats_are_decoded():
    images = load_images("emoji-mini", "test", check_images=False).select(range(5))
    pixels = read_pixels(images)
    assert all(torch.equal(pixels[i], images.tensor(i)) for i in range(5))


def test_images_of_two_sizes_are_named(tmp_path):
    for i, size in enumerate([(8, 8), (8, 9)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    images = ImageSet.from_files([tmp_path / "0.png", tmp_path / "1.png"], [0, 0], ["a"])
    with pytest.raises(ValueError, match=r"1\.png differs \(8x8 and 8x9 pixels\)"):
        read_pixels(images)
    with pytest.raises(ValueError, match="no images"):
        read_pixels(images.select([]))


def test_shift_and_flip_is_a_crop_of_the_padded_image():
    batch = torch.randint(0, 256, (5, 3, 6, 9), dtype=torch.uint8)
    draws = np.random.default_rng(1).random((5, 3))
    out = shift_and_flip(batch, draws, padding=2, flip=0.5)
    for image, draw, result in zip(batch.numpy(), draws, out.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
        top, left = int(draw[0] * 5), int(draw[1] * 5)
        expected = padded[:, top : top + 6, left : left + 9]
        np.testing.assert_array_equal(result, expected[:, :, ::-1] if draw[2] < 0.5 else expected)


def test_all_shifts_occur_evenly():
    pixels = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).expand(9000, 1, 3, 3)
    draws = np.random.default_rng(0).random((9000, 3))
    centres = shift_and_flip(pixels, draws, padding=1, flip=0.0)[:, 0, 1, 1]
    counts = np.bincount(centres, minlength=10)[1:]
    assert abs(counts - 1000).max() < 150


def test_a_draw_gives_the_same_image_in_any_company():
    images = SmallImages(arrays(), padding=2, flip=0.5, seed=5)
    draws = [Draw(0, position, index) for position, index in enumerate([4, 1, 4, 9])]
    together = images.__getitems__(draws)
    alone = [images[draw] for draw in draws]
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a["pixel_values"], b["pixel_values"]) and a["labels"] == b["labels"]
    # the same image at another position, in another epoch, or under another seed
    others = [images[Draw(0, 50, 4)], images[Draw(1, 0, 4)], SmallImages(arrays(), 2, 0.5, 6)[draws[0]]]
    assert sum(torch.equal(o["pixel_values"], together[0]["pixel_values"]) for o in others) < 2


def test_integers_and_no_augmentation_give_the_image_itself():
    source = arrays(colour=False)
    for images, key in ((SmallImages(source), 3), (SmallImages(source, padding=0, flip=0.0), Draw(0, 0, 3))):
        item = images[key]
        assert torch.equal(item["pixel_values"], source.tensor(3)) and item["labels"] == 0
