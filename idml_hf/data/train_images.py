"""The training set as the `DataLoader` sees it: augmented images, the same again whenever a run is resumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers.image_utils import PILImageResampling

from idml_hf.image_processing_idml import SMALL_IMAGE, IDMLImageProcessor

from .device_augmentation import DeviceAugmentation
from .image_set import ImageSet
from .randomness import derive_seed, seeded
from .transforms import FLIP, training_transform


class Draw(NamedTuple):
    """What a batch sampler asks for: image `index`, as the `position`-th image drawn in `epoch`."""

    epoch: int
    position: int
    index: int  # type: ignore[assignment]


class TrainImages(torch.utils.data.Dataset):
    """Map-style data set of `{"pixel_values": tensor, "labels": int, "groups": int}`.

    Without groups, each image is a group of its own.

    Asked for a `Draw`, it augments by a random stream that depends only on (seed, epoch, position, index): not on the
    worker, on the number of workers, or on what was drawn before. Asked for a plain integer, as by torch's own
    samplers, it draws from torch's global generator like any torchvision data set.

    Args:
        images: what to read.
        transform: function of a uint8 tensor (3, H, W), see `training_transform`; it may draw from torch's CPU
            generator and from `random`. None: leave the images as they are, which must have one size, and add
            `"seeds": int` for `DeviceAugmentation`.
        seed: seed of the run.
    """

    def __init__(
        self, images: ImageSet, transform: Callable[[torch.Tensor], torch.Tensor] | None, seed: int = 0
    ) -> None:
        self.images = images
        self.labels = images.labels
        self.transform = transform
        self.seed = seed
        self._shape: torch.Size | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | Draw) -> dict[str, Any]:
        index = key.index if isinstance(key, Draw) else key
        group = index if self.images.groups is None else int(self.images.groups[index])
        item: dict[str, Any] = {"pixel_values": self.images.tensor(index), "labels": int(self.labels[index])}
        item["groups"] = group
        if self.transform is None:
            self._check_shape(index, item["pixel_values"].shape)
            item["seeds"] = self._seed(key) if isinstance(key, Draw) else int(torch.randint(2**62, ()))
        elif isinstance(key, Draw):
            with seeded(self._seed(key)):
                item["pixel_values"] = self.transform(item["pixel_values"])
        else:
            item["pixel_values"] = self.transform(item["pixel_values"])
        return item

    def _check_shape(self, index: int, shape: torch.Size) -> None:
        self._shape = self._shape or shape
        if shape != self._shape:
            (_, height, width), (_, other_height, other_width) = shape, self._shape
            raise ValueError(
                f"{self.images.image_id(index)} is {width}x{height} pixels, but images before it are "
                f"{other_width}x{other_height}: augmentation on the device takes images of one size"
            )

    def _seed(self, draw: Draw) -> int:
        return derive_seed(self.seed, *draw)


def cropped_images(
    images: ImageSet,
    processor: IDMLImageProcessor,
    *,
    crop_scale: float,
    flip: float = FLIP,
    seed: int = 0,
    on_device: bool = False,
) -> tuple[TrainImages, DeviceAugmentation | None]:
    """Training images in random crops of random size, resized as the processor resizes, and what crops on the device.

    Args:
        images: what to train on.
        processor: the model's, which says size, filter and, on the device, normalisation.
        crop_scale: smallest area of a crop, as a share of the image's.
        flip: probability of a horizontal flip.
        seed: seed of the run.
        on_device: leave the images whole; the second result is for the trainer. Else it is None.
    """
    size = processor.crop_size["height"]
    scale = (crop_scale, 1.0)
    if on_device:
        augmentation = DeviceAugmentation(size, processor.image_mean, processor.image_std, scale=scale, flip=flip)
        return TrainImages(images, None, seed), augmentation
    bilinear = size <= SMALL_IMAGE or processor.resample == PILImageResampling.BILINEAR
    transform = training_transform(size, scale=scale, flip=flip, interpolation="bilinear" if bilinear else "bicubic")
    return TrainImages(images, transform, seed), None
