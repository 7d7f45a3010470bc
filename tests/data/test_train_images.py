"""Augmentation: a function of (seed, epoch, position, index) alone, whatever the workers, and rightly distributed."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from idml_hf.data import (
    DeviceAugmentation,
    Draw,
    Normalizer,
    TrainImages,
    derive_seed,
    load_retrieval_data,
    padded_crop_transform,
    seeded,
    training_transform,
)
from idml_hf.data.device_augmentation import ATTEMPTS, crop_boxes
from idml_hf.data.randomness import uniform

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


@pytest.fixture(scope="module")
def images():
    return load_retrieval_data("emoji-mini").train.select(range(24))


def batches(epoch):
    order = np.random.default_rng(epoch).permutation(24).tolist()
    draws = [Draw(epoch, position, index) for position, index in enumerate(order)]
    return [draws[start : start + 6] for start in range(0, 24, 6)]


def epoch_of(dataset, epoch, workers, skip=0):
    loader = DataLoader(dataset, batch_sampler=batches(epoch)[skip:], num_workers=workers)
    return torch.cat([batch["pixel_values"] for batch in loader])


def test_the_same_images_with_any_number_of_workers_and_after_a_resume(images):
    dataset = TrainImages(images, training_transform(32, MEAN, STD), seed=3)
    alone = epoch_of(dataset, 1, workers=0)
    torch.manual_seed(99)
    random.seed(99)
    torch.rand(7)
    assert torch.equal(epoch_of(dataset, 1, workers=2), alone)
    assert torch.equal(epoch_of(dataset, 1, workers=2, skip=2), alone[12:])
    assert not torch.equal(epoch_of(dataset, 2, workers=0), alone)
    assert not torch.equal(epoch_of(TrainImages(images, dataset.transform, seed=4), 1, workers=0), alone)


def test_workers_that_are_spawned_get_the_same_images(images):
    dataset = TrainImages(images, training_transform(32, MEAN, STD), seed=3)
    sent = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(sent[Draw(0, 1, 2)]["pixel_values"], dataset[Draw(0, 1, 2)]["pixel_values"])


def test_each_part_of_a_draw_counts(images):
    dataset = TrainImages(images, training_transform(32))
    base = dataset[Draw(0, 0, 5)]
    assert torch.equal(dataset[Draw(0, 0, 5)]["pixel_values"], base["pixel_values"])
    assert base["labels"] == images.labels[5] and isinstance(base["labels"], int)
    for other in (Draw(1, 0, 5), Draw(0, 1, 5)):
        assert not torch.equal(dataset[other]["pixel_values"], base["pixel_values"])


def test_drawing_leaves_global_generators_alone(images):
    dataset = TrainImages(images, training_transform(32))
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3), random.random()
    torch.manual_seed(5)
    random.seed(5)
    dataset[Draw(0, 0, 0)]
    assert torch.equal(torch.rand(3), expected[0]) and random.random() == expected[1]


def test_integers_draw_from_the_global_generator(images):
    dataset = TrainImages(images, training_transform(32))
    torch.manual_seed(0)
    first, second = dataset[3]["pixel_values"], dataset[3]["pixel_values"]
    torch.manual_seed(0)
    assert torch.equal(dataset[3]["pixel_values"], first) and not torch.equal(first, second)


def test_seeded_restores_after_an_error():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with pytest.raises(KeyError), seeded(7):
        torch.rand(5)
        raise KeyError
    assert torch.equal(torch.rand(1), expected)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_derived_seeds_fit_a_generator(numbers):
    seed = derive_seed(*numbers)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_derived_seeds_are_pinned():
    """A change here breaks the resume of every run under way."""
    assert derive_seed(0, 1, 2, 3) == 8479124504904169328
    assert len({derive_seed(0, epoch, i) for epoch in range(20) for i in range(500)}) == 10000


def test_training_transform_is_torchvisions(images):
    picture = images.tensor(0)
    ours = training_transform(32, MEAN, STD, scale=(0.3, 0.9), ratio=(0.8, 1.25), flip=0.5)
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(32, (0.3, 0.9), (0.8, 1.25), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    for seed in range(5):
        torch.manual_seed(seed)
        expected = theirs(picture)
        torch.manual_seed(seed)
        torch.testing.assert_close(ours(picture), expected, atol=1e-5, rtol=0)


def test_transform_without_flip_keeps_left_and_right():
    half = torch.zeros(3, 16, 16, dtype=torch.uint8)
    half[..., 8:] = 255
    whole = training_transform(16, scale=(1, 1), ratio=(1, 1), flip=0)
    assert torch.equal(whole(half), half)
    always = training_transform(16, scale=(1, 1), ratio=(1, 1), flip=1)
    assert torch.equal(always(half), half.flip(-1))


def test_tiny_and_long_images_survive():
    transform = training_transform(8, MEAN, STD)
    for shape in ((1, 1), (1, 300), (300, 1)):
        assert transform(torch.zeros(3, *shape, dtype=torch.uint8)).shape == (3, 8, 8)


def test_padded_crop_shifts_by_at_most_the_padding():
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    picture[:, 16, 16] = 255
    transform = padded_crop_transform(32, padding=4, flip=0)
    places = [divmod(int(transform(picture)[0].argmax()), 32) for _ in range(200)]
    assert {row - 16 for row, _ in places} == {column - 16 for _, column in places} == set(range(-4, 5))


def test_normalizer_equals_torchvisions():
    pixels = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = v2.functional.normalize(pixels.float() / 255, MEAN, STD)
    torch.testing.assert_close(Normalizer(MEAN, STD)(pixels), expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(Normalizer(MEAN, STD)(pixels[0]), Normalizer(MEAN, STD)(pixels)[0])
    assert not list(Normalizer(MEAN, STD).state_dict())


def test_device_augmentation_depends_on_the_seeds_alone(images):
    dataset = TrainImages(images, None, seed=1)
    batch = torch.utils.data.default_collate([dataset[draw] for draw in batches(0)[0]])
    augment = DeviceAugmentation(24, MEAN, STD)
    out = augment(batch["pixel_values"], batch["seeds"])
    assert out.shape == (6, 3, 24, 24) and out.dtype == torch.float32
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    torch.manual_seed(123)
    assert torch.equal(augment(batch["pixel_values"][order], batch["seeds"][order]), out[order])
    assert not torch.equal(augment(batch["pixel_values"], batch["seeds"] + 1), out)
    assert len({dataset[3]["seeds"] for _ in range(5)}) == 5, "integers draw new seeds"


def test_device_augmentation_crops_what_its_box_says(images):
    pixels = images.tensor(0)[None].repeat(64, 1, 1, 1)
    seeds = torch.arange(64)
    draws = uniform(seeds.numpy(), 3 + 2 * ATTEMPTS)
    boxes = crop_boxes(draws[:, 1:], 48, 48, (0.3, 1.0), (3 / 4, 4 / 3)).astype(int)
    out = DeviceAugmentation(16, [0, 0, 0], [1, 1, 1], scale=(0.3, 1.0))(pixels, seeds)
    differences = []
    for i, (left, top, right, bottom) in enumerate(boxes):
        crop = v2.functional.resized_crop(
            pixels[i].float() / 255, top, left, bottom - top, right - left, [16, 16], antialias=True
        )
        expected = crop.flip(-1) if draws[i, 0] < 0.5 else crop
        differences.append((out[i] - expected).abs().mean().item())
    assert max(differences) < 0.05, "averaging differs a little from torchvision's filter, a wrong box by far more"
    wrong = (out[:-1] - out[1:]).abs().mean(dim=(1, 2, 3))
    assert wrong.median() > 0.1


@pytest.mark.parametrize(("height", "width"), [(48, 48), (375, 500), (40, 200)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    crop = v2.RandomResizedCrop(8, (0.16, 1.0))
    picture = torch.empty(3, height, width)
    theirs = np.array(
        [
            [p["left"], p["top"], p["left"] + p["width"], p["top"] + p["height"]]
            for p in (crop.make_params([picture]) for _ in range(3000))
        ]
    )
    draws = uniform(np.arange(3000), 2 + 2 * ATTEMPTS)
    ours = crop_boxes(draws, height, width, (0.16, 1.0), (3 / 4, 4 / 3))
    assert (ours[:, :2] >= 0).all() and (ours[:, 2] <= width).all() and (ours[:, 3] <= height).all()
    for side in range(4):
        assert ks_2samp(ours[:, side], theirs[:, side]).pvalue > 1e-4


def test_box_where_nothing_fits_is_the_middle():
    draws = uniform(np.arange(5), 2 + 2 * ATTEMPTS)
    boxes = crop_boxes(draws, 10, 500, (1.0, 1.0), (3 / 4, 4 / 3))
    assert boxes.tolist() == [[243, 0, 256, 10]] * 5


def test_uniform_is_uniform():
    values = uniform(np.arange(20000) - 10000, 4)
    assert values.min() >= 0 and values.max() < 1
    assert np.abs(values.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.03
