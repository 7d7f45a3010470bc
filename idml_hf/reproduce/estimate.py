"""How long a table will take."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import torch

from idml_hf.data import DATASETS
from idml_hf.modeling_idml import IDMLPreTrainedModel
from idml_hf.training.models import build_model
from idml_hf.training.settings import Run

from .results import Result

# pixels of a batch to time on a CPU: eight images of 224 pixels a side
CPU_PIXELS = 8 * 224**2


def images_seen(run: Run) -> int | None:
    """Number of training images of all epochs together; None for a data set that is not in the registry."""
    spec = DATASETS.get(run.dataset or "")
    if spec is None:
        return None
    return round(spec.expected["train"][0] * (1 - run.validation_fraction)) * run.epochs


def measured_rate(results: Iterable[Result]) -> float | None:
    """Training images a second of the runs that were made."""
    rates = [rate for result in results if (rate := result.metrics.get("train_images_per_second"))]
    return sum(rates) / len(rates) if rates else None


def timed_rate(run: Run, steps: int = 2) -> float:
    """Training images a second of this machine: forward and backward passes of random images, without data loading."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, classes = fresh_model(run), max(2, min(10, run.batch_size // 2))
    model = model.to(device, memory_format=torch.channels_last).train()
    size = run.image_size or 224
    batch = run.batch_size if device.type == "cuda" else min(run.batch_size, max(2, CPU_PIXELS // size**2))
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    inputs = {"pixel_values": images, "labels": torch.arange(batch, device=device) % classes}
    if run.mixup:
        mix_ratio = torch.tensor(0.5, device=device)
        inputs |= {"mixed_pixel_values": images, "mixed_classes": inputs["labels"], "mix_ratio": mix_ratio}
    half = torch.autocast(device.type, torch.bfloat16 if run.precision == "bf16" else torch.float16)
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        if run.precision == "fp32":
            loss = model(**inputs).loss
        else:
            with half:
                loss = model(**inputs).loss
        loss.backward()
        # reading the loss waits for the device
        loss.item()
    return batch * steps / (time.perf_counter() - started)


def fresh_model(run: Run) -> IDMLPreTrainedModel:
    """The model of a run, with random weights everywhere; it can be built on the meta device."""
    spec = DATASETS.get(run.dataset or "")
    classes = spec.expected["train"][1] if spec is not None else 100
    fresh = replace(run, weights=None, pretrained=False)
    return build_model(fresh, [str(label) for label in range(classes)])[0]


__all__ = ["fresh_model", "images_seen", "measured_rate", "timed_rate"]
