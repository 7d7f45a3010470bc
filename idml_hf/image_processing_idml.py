"""Image processor of the IDML models."""

from __future__ import annotations

import contextlib
import importlib
import math
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

from .errors import clear_loading_errors, one_of
from .rgb import to_eight_bits, to_rgb

# Below this side the border of a picture carries content that a central crop would cut away.
SMALL_IMAGE = 64

_LONGEST = 32  # times the shorter side

_RESAMPLING = {
    "nearest": PILImageResampling.NEAREST,
    "bilinear": PILImageResampling.BILINEAR,
    "bicubic": PILImageResampling.BICUBIC,
    "lanczos": PILImageResampling.LANCZOS,
}

_SIDES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
_LARGEST_SIDE = 2**14  # pixels


class IDMLImageProcessor(TorchvisionBackend):
    """Resize, centre crop and normalise images the way the trunk was trained.

    Example:
        >>> from PIL import Image
        >>> from idml_hf import IDMLImageProcessor
        >>> processor = IDMLImageProcessor.from_backbone("resnet18", image_size=64)
        >>> processor(Image.new("RGB", (80, 60)), return_tensors="pt").pixel_values.shape
        torch.Size([1, 3, 64, 64])
    """

    model_input_names = ["pixel_values"]
    resample = PILImageResampling.BICUBIC
    image_mean = list(IMAGENET_DEFAULT_MEAN)
    image_std = list(IMAGENET_DEFAULT_STD)
    size = {"shortest_edge": 256}
    crop_size = {"height": 224, "width": 224}
    default_to_square = False
    do_convert_rgb = True
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # a file from anywhere may hold anything
        for field in ("size", "crop_size"):
            for side in _SIDES:
                value = getattr(getattr(self, field), side, None)
                if value is not None and not (type(value) is int and 0 < value <= _LARGEST_SIDE):
                    raise ValueError(
                        f"{side} in {field} of the image processor must be a number of pixels, not {value!r}"
                    )
        for field in ("image_mean", "image_std"):
            values = getattr(self, field)
            values = values if isinstance(values, (list, tuple)) else [] if values is None else [values]
            if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
                raise ValueError(f"{field} of the image processor must hold numbers, not {values!r}")

    def process_image(self, image: Any, do_convert_rgb: bool | None = None, **kwargs: Any) -> torch.Tensor:
        """One picture as tensor (C, H, W): upright, in RGB, in 8 bits or as the floats that were given.

        PIL images of any mode are converted as [`idml_hf.rgb.to_rgb`] says, as all pictures that the package reads;
        of arrays and tensors, 16-bit values are brought to 8 bits.

        Args:
            image: PIL image, array or tensor.
            do_convert_rgb: Whether to convert; else a PIL image is taken as it is.
            kwargs: As for transformers' method of this name.
        """
        if do_convert_rgb and isinstance(image, PIL.Image.Image):
            image = to_rgb(image)
        elif isinstance(image, (np.ndarray, torch.Tensor)):
            whole = (not image.is_floating_point()) if isinstance(image, torch.Tensor) else image.dtype.kind in "iu"
            if whole and image.dtype not in (np.uint8, torch.uint8):
                narrow = to_eight_bits(image.cpu().numpy() if isinstance(image, torch.Tensor) else image)
                image = torch.from_numpy(np.ascontiguousarray(narrow))
        return super().process_image(image, do_convert_rgb=do_convert_rgb, **kwargs)

    def _preprocess(
        self, images: list[torch.Tensor], do_resize: bool, size: Any, do_center_crop: bool, **kwargs: Any
    ) -> Any:
        if do_resize and do_center_crop and getattr(size, "shortest_edge", None):
            images = [_middle(image) for image in images]
        return super()._preprocess(images, do_resize=do_resize, size=size, do_center_crop=do_center_crop, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load an image processor from a folder or the Hub; takes the arguments of transformers' method of this name.

        Raises:
            OSError: saying what is missing: folder, repository, revision, file or connection.
        """
        with clear_loading_errors(str(pretrained_model_name_or_path), kwargs.get("revision")):
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def for_model(cls, model: Any, revision: str | None = None) -> IDMLImageProcessor:
        """The image processor saved beside a model, or the one that fits its backbone where there is none.

        Args:
            model: A model of this package; its `name_or_path` says where it was loaded from.
            revision: Commit, tag or branch, for a model from the Hub.
        """
        if model.name_or_path:
            with contextlib.suppress(OSError):
                return cls.from_pretrained(model.name_or_path, revision=revision or "main")
        return cls.from_backbone(model.config.backbone, image_size=model.config.image_size)

    @classmethod
    def from_timm(
        cls, data_config: dict[str, Any], image_size: int | None = None, crop_pct: float | None = None
    ) -> IDMLImageProcessor:
        """Make the processor from timm's data configuration of a trunk.

        Args:
            data_config: As `timm.data.resolve_data_config` returns it: `input_size`, `interpolation`, `mean`, `std`,
                `crop_pct`, `crop_mode`.
            image_size: Side in pixels instead of the trunk's own.
            crop_pct: Share of the resized image's side that the centre crop keeps, in (0, 1]; `None` means the
                trunk's own, or 1 for images of at most 64 pixels.

        Raises:
            ValueError: if `crop_pct` is outside (0, 1].
        """
        height, width = data_config["input_size"][1:]
        if image_size is not None:
            height = width = image_size
        if crop_pct is None:
            crop_pct = 1.0 if max(height, width) <= SMALL_IMAGE else data_config.get("crop_pct") or 1.0
        if not 0 < crop_pct <= 1:
            raise ValueError(f"crop_pct must be in (0, 1], not {crop_pct}")
        if data_config.get("crop_mode") == "squash":
            size = {"height": math.floor(height / crop_pct), "width": math.floor(width / crop_pct)}
        else:
            size = {"shortest_edge": math.floor(min(height, width) / crop_pct)}
        return cls(
            size=size,
            crop_size={"height": height, "width": width},
            resample=_RESAMPLING.get(data_config.get("interpolation", "bicubic"), PILImageResampling.BICUBIC),
            image_mean=list(data_config["mean"]),
            image_std=list(data_config["std"]),
        )

    @classmethod
    def from_backbone(
        cls, backbone: str, image_size: int | None = None, crop_pct: float | None = None
    ) -> IDMLImageProcessor:
        """Make the processor for a timm architecture, by name.

        Raises:
            ValueError: for an unknown architecture.
        """
        import timm
        from timm.data import resolve_data_config

        # the package's own architectures, where this file is part of it
        with contextlib.suppress(ImportError):
            importlib.import_module("idml_hf.architectures")
        if not timm.is_model(backbone):
            one_of("timm architecture", backbone, timm.list_models())
        config = timm.get_pretrained_cfg(backbone)
        if config is None:
            raise ValueError(f"timm has no data configuration for {backbone!r}")
        return cls.from_timm(resolve_data_config({}, pretrained_cfg=config.to_dict()), image_size, crop_pct)


def _middle(image: torch.Tensor) -> torch.Tensor:
    """The middle of a picture that is far longer than wide, all that its centre crop can see.

    Enlarged as a whole until its shorter side fits, a line of 60,000 pixels would fill the memory.
    """
    for axis in (-2, -1):
        longest = _LONGEST * image.shape[-3 - axis]
        surplus = image.shape[axis] - longest
        if surplus > 1:
            image = image.narrow(axis, surplus // 2, image.shape[axis] - surplus // 2 * 2)
    return image


__all__ = ["IDMLImageProcessor"]
