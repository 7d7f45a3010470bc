"""ONNX export: a model for programs that have no PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from idml_hf.hub.record import RunRecord

from .files import replacing
from .image_processing_idml import IDMLImageProcessor
from .modeling_idml import IDMLForImageClassification, IDMLModel, IDMLPreTrainedModel

ONNX_FILE = "model.onnx"
INPUT = "pixel_values"
OUTPUTS = ("semantic_embeds", "uncertainty_embeds")
CLASSIFIER_OUTPUTS = ("logits", "uncertainty_embeds")
# what float32 may differ by between two orders of summation in a deep trunk
TOLERANCE = 1e-4


class _Outputs(nn.Module):
    """The model, with some of its outputs as a tuple."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        out = self.model(pixel_values)
        return tuple(out[name] for name in self.names)


def export_onnx(model: str | Path, output: str | Path) -> float:
    """Export a model to `output/model.onnx`, with its image processor's settings beside it.

    The input is `pixel_values`, float32 (batch, 3, H, W) with the image processor's H and W, and any batch. The
    outputs are `semantic_embeds` (batch, d), of unit norm, and `uncertainty_embeds` (batch, d_u), whose norm is the
    uncertainty; a classifier gives `logits` instead of the former. The file is run by onnxruntime and compared with
    torch before it gets its name.

    Args:
        model: Folder or Hub id.
        output: Folder to write.

    Returns:
        The largest difference from torch, as a share of the largest output.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is not installed.
        OSError, ValueError: if the model cannot be loaded.
        FloatingPointError: if the exported model does not compute the same.

    Example:
        >>> export_onnx("demo", "demo-onnx")  # doctest: +SKIP
        7.5e-07
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX export needs {', '.join(missing)}: install idml-hf[onnx]")
    loaded, outputs = _load(model)
    processor = IDMLImageProcessor.from_pretrained(model)
    size = processor.crop_size["height"], processor.crop_size["width"]
    output = Path(output)
    wrapper = _Outputs(loaded.float(), outputs).eval()
    with replacing(output / ONNX_FILE) as unchecked:
        _export(wrapper, unchecked, size)
        difference = _compare(wrapper, unchecked, size)
        if not difference <= TOLERANCE:
            raise FloatingPointError(f"The exported model differs from torch by {difference:.2g}, so it is not kept")
    processor.save_pretrained(output)
    return difference


def _load(model: str | Path) -> tuple[IDMLPreTrainedModel, tuple[str, ...]]:
    from .configuration_idml import IDMLConfig

    if RunRecord(IDMLConfig.from_pretrained(model).to_dict()).is_classifier:
        return IDMLForImageClassification.from_pretrained(model), CLASSIFIER_OUTPUTS
    return IDMLModel.from_pretrained(model), OUTPUTS


def _export(wrapper: _Outputs, path: Path, size: tuple[int, int]) -> None:
    torch.onnx.export(
        wrapper,
        (torch.zeros(2, 3, *size),),
        path,
        dynamo=True,
        external_data=False,
        input_names=[INPUT],
        output_names=list(wrapper.names),
        dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    _forget_origin(path)


def _forget_origin(path: Path) -> None:
    """Take off what each node says of the code that made it, and of where that lies on this machine."""
    import onnx

    model = onnx.load(path)
    _forget(model)
    onnx.save(model, path)


def _forget(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if isinstance(value, Sequence) or hasattr(value, "__len__") else [value]:
                _forget(part)


def _compare(wrapper: _Outputs, path: Path, size: tuple[int, int]) -> float:
    """Largest difference on batches of other sizes than the one exported with."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in (1, 3):
        pixel_values = torch.randn(batch, 3, *size, generator=generator)
        with torch.inference_mode():
            expected: Any = wrapper(pixel_values)
        for ours, theirs in zip(expected, session.run(None, {INPUT: pixel_values.numpy()}), strict=True):
            scale = max(1.0, float(ours.abs().max()))
            worst = max(worst, float(np.abs(ours.numpy() - theirs).max()) / scale)
    return worst


__all__ = ["export_onnx"]
