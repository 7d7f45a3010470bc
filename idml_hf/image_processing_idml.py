"""Image processor of the IDML models."""

from __future__ import annotations

import contextlib
import importlib
import math
from typing import Any

from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

from .errors import clear_loading_errors, one_of

# Below this side the border of a picture carries content that a central crop would cut away.
SMALL_IMAGE = 64

_RESAMPLING = {
    "nearest": PILImageResampling.NEAREST,
    "bilinear": PILImageResampling.BILINEAR,
    "bicubic": PILImageResampling.BICUBIC,
    "lanczos": PILImageResampling.LANCZOS,
}


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


__all__ = ["IDMLImageProcessor"]
