"""Images as the model's processor prepares them, for evaluation and embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from torch.utils.data import Dataset

from .as_image_set import as_image_set, is_table
from .image_set import ImageSet

if TYPE_CHECKING:
    from idml_hf.image_processing_idml import IDMLImageProcessor


class EvalImages(Dataset):
    """Images as the processor prepares them, for a `DataLoader` or the Trainer.

    Args:
        images: An [`idml_hf.data.ImageSet`]; a sequence of PIL images, each asked for when it is needed; or whatever
            [`idml_hf.data.as_image_set`] takes.
        processor: The model's image processor.
    """

    def __init__(self, images: Any, processor: IDMLImageProcessor) -> None:
        self.images: ImageSet | Sequence[Any] = _readable(images)
        images = self.images
        self.processor = processor
        self.labels = np.asarray(getattr(images, "labels", np.full(len(images), -1)), dtype=np.int64)
        self.groups: np.ndarray | None = getattr(images, "groups", None)
        self.group_column: str | None = getattr(images, "group_column", None)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        # a batch at a time: the processor resizes images of one size together
        read = self.images.tensor if isinstance(self.images, ImageSet) else self.images.__getitem__
        pixel_values = self.processor([read(i) for i in indices], return_tensors="pt").pixel_values
        return [{"pixel_values": x, "labels": int(self.labels[i])} for i, x in zip(indices, pixel_values, strict=True)]


def _readable(images: Any) -> ImageSet | Sequence[Any]:
    """`images` as they are if they are pictures that the processor takes, one at a time."""
    if isinstance(images, (list, tuple)):
        as_they_are = all(isinstance(image, PIL.Image.Image) for image in images)
    else:
        as_they_are = hasattr(images, "__getitem__") and not (
            is_table(images) or isinstance(images, (str, bytes)) or hasattr(images, "ndim")
        )
    return images if as_they_are else as_image_set(images)


__all__ = ["EvalImages"]
