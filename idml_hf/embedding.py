"""Embedding of many images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.utils import logging

from .data import EvalImages, ImageSet, RowFiles, VectorSet, as_image_set, row_blocks
from .errors import one_of
from .image_processing_idml import IDMLImageProcessor
from .modeling_idml import IDMLModel, IDMLPreTrainedModel

logger = logging.get_logger(__name__)

PRECISIONS = ("fp32", "bf16")
_VECTORS = 1024  # at a time, at least: they are small beside images
_OUTPUTS = ("semantic_embeds", "uncertainty_embeds", "uncertainty", "semantic_norm")


@dataclass(frozen=True)
class Embeddings:
    """What a model says of N images, as float32 arrays.

    Args:
        semantic: `(N, d)`, unit norm.
        uncertainty_embeds: `(N, d_u)`.
        uncertainty: `(N,)`, norm of the uncertainty embedding.
        semantic_norm: `(N,)`, norm of the semantic embedding before normalisation.
    """

    semantic: np.ndarray
    uncertainty_embeds: np.ndarray
    uncertainty: np.ndarray
    semantic_norm: np.ndarray

    def __len__(self) -> int:
        return len(self.semantic)

    def __getitem__(self, index: Any) -> Embeddings:
        """The embeddings of some of the images, by slice, mask or indices."""
        return Embeddings(
            self.semantic[index], self.uncertainty_embeds[index], self.uncertainty[index], self.semantic_norm[index]
        )


def encode(
    model: IDMLModel,
    images: Any,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    progress: bool = False,
) -> Embeddings:
    """Embed whatever a user has of images, with the image processor that was saved beside the model.

    The model is left in the mode that it was in.

    Args:
        model: The model.
        images: Paths, PIL images, arrays or tensors, mixed and of any sizes; an [`idml_hf.data.ImageSet`]; a
            `datasets.Dataset`, also streaming; see [`idml_hf.data.as_image_set`]. For a model of vectors a matrix
            `(N, width)`.
        batch_size: Images at a time.
        device: Where to compute; `None` means a GPU if there is one.
        precision: `"fp32"`, or `"bf16"` for faster layers where the processor has them.
        progress: Whether to show a progress bar.

    Raises:
        FileNotFoundError: naming a file that is not there.
        ValueError, TypeError: for no images, or what is none.
    """
    training = model.training
    try:
        images = _as_vectors(images) if model.config.takes_vectors else as_image_set(images)
        return embed_dataset(
            model,
            None if model.config.takes_vectors else _processor_of(model),
            images,
            batch_size=batch_size,
            device=device,
            progress=progress,
            precision=precision,
        )
    finally:
        model.train(training)


def _as_vectors(rows: Any) -> VectorSet:
    if isinstance(rows, VectorSet):
        return rows
    if not isinstance(rows, RowFiles):
        rows = np.asarray(rows, dtype=np.float32)
    if len(rows.shape) != 2:
        raise ValueError(f"this model takes a matrix, a row for each image, not an array of shape {rows.shape}")
    return VectorSet.of(rows, None, ())


def _processor_of(model: IDMLModel) -> IDMLImageProcessor:
    # read once: a model from the Hub would ask the Hub each time
    if getattr(model, "_image_processor", None) is None:
        model._image_processor = IDMLImageProcessor.for_model(model)
    return model._image_processor


def _stack(samples: list[dict[str, Any]]) -> Tensor:
    return torch.stack([sample["pixel_values"] for sample in samples])


def embed_dataset(
    model: IDMLModel,
    processor: IDMLImageProcessor | None,
    dataset: ImageSet | VectorSet | Sequence[Any],
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    progress: bool = True,
    precision: str = "fp32",
) -> Embeddings:
    """Embed all images of a data set, in order.

    Args:
        model: The model; it is put into evaluation mode and on `device`.
        processor: Its image processor; None for a model of vectors.
        dataset: An [`idml_hf.data.ImageSet`], or a sequence of PIL images; for a model of vectors an
            [`idml_hf.data.VectorSet`].
        batch_size: Images at a time.
        device: Where to compute; `None` means a GPU if there is one.
        num_workers: Processes that decode.
        progress: Whether to show a progress bar.
        precision: `"fp32"` or `"bf16"`, as for `encode`.

    Raises:
        ValueError: if there are no images, or for an unknown precision.

    Example:
        >>> from PIL import Image
        >>> from idml_hf import IDMLImageProcessor, IDMLModel
        >>> model = IDMLModel.from_backbone("resnet18", pretrained=False, embedding_dim=16)
        >>> processor = IDMLImageProcessor.from_backbone("resnet18", image_size=32)
        >>> embed_dataset(model, processor, [Image.new("RGB", (40, 40))], progress=False).semantic.shape
        (1, 16)
    """
    columns = run_model(
        model,
        processor,
        dataset,
        _OUTPUTS,
        "Embedding",
        batch_size=batch_size,
        device=device,
        num_workers=num_workers,
        progress=progress,
        precision=precision,
    )
    return Embeddings(*columns)


@torch.inference_mode()
def training_cohort(model: IDMLModel) -> np.ndarray | None:
    """The training images that a model remembers, embedded as in evaluation: images of no class that is new to it.

    Returns:
        Float32 `(M, d)`, unit rows; None for a model that remembers none.

    Example:
        >>> from idml_hf import IDMLModel
        >>> training_cohort(IDMLModel.from_backbone("resnet18", pretrained=False, embedding_dim=16)) is None
        True
    """
    if model.reference is None or not int(model.reference.seen):
        return None
    remembered = model.reference.embeddings[: int(model.reference.seen)].float()
    # a queue that is larger than the training set holds images more than once
    remembered = remembered.unique(dim=0)
    semantic = [model.centred(rows)[0].cpu() for rows in remembered.split(1024)]
    return torch.cat(semantic).numpy()


def run_model(
    model: IDMLPreTrainedModel,
    processor: IDMLImageProcessor | None,
    dataset: ImageSet | VectorSet | Sequence[Any],
    outputs: Sequence[str],
    title: str,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    progress: bool = True,
    precision: str = "fp32",
) -> list[np.ndarray]:
    """Run a model on all images of a data set, in order; arguments as for `embed_dataset`.

    Args:
        outputs: Fields of the model's output to keep.
        title: Title of the progress bar.

    Returns:
        A float32 array for each of `outputs`, with a row for each image.

    Raises:
        ValueError: if there are no images.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    batches = _batches(model, processor, dataset, device, batch_size, num_workers)
    return _run(model, batches, len(dataset), outputs, title, device=device, progress=progress, precision=precision)


def _batches(
    model: IDMLPreTrainedModel,
    processor: IDMLImageProcessor | None,
    dataset: Any,
    device: torch.device,
    batch_size: int,
    num_workers: int,
) -> Iterable[Tensor]:
    if isinstance(dataset, VectorSet) != model.config.takes_vectors:
        raise ValueError(
            "this model takes vectors, and no images: give a matrix, on the command line --features"
            if model.config.takes_vectors
            else "this model takes images, and no vectors"
        )
    if isinstance(dataset, VectorSet):
        return (torch.from_numpy(block) for block in row_blocks(dataset.vectors, max(batch_size, _VECTORS)))
    assert processor is not None
    return pixel_batches(processor, dataset, device, batch_size, num_workers)


def pixel_batches(
    processor: IDMLImageProcessor,
    dataset: ImageSet | Sequence[Any],
    device: torch.device,
    batch_size: int = 64,
    num_workers: int = 0,
) -> Iterable[Tensor]:
    """The images of a data set as the processor prepares them, in order, each batch while the last one is computed.

    Args:
        processor: The model's image processor.
        dataset: As for `embed_dataset`.
        device: Where they go next; they stay on the CPU.
        batch_size: Images at a time.
        num_workers: Processes that decode.
    """
    loader = DataLoader(
        EvalImages(dataset, processor),
        batch_size=batch_size,
        collate_fn=_stack,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    return loader if num_workers else _ahead(loader)


def _run(
    model: IDMLPreTrainedModel,
    batches: Iterable[Tensor],
    number: int,
    outputs: Sequence[str],
    title: str,
    *,
    device: torch.device | str | None,
    progress: bool,
    precision: str,
) -> list[np.ndarray]:
    one_of("precision", precision, PRECISIONS)
    if number == 0:
        raise ValueError("There are no images to embed")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if getattr(model, "hf_device_map", None) is None:
        model = model.to(device)
    model = model.eval()
    parts: list[tuple[Tensor, ...]] = []
    bar = tqdm(total=number, desc=title, unit="image", disable=not progress)
    if precision == "bf16" and device.type == "cpu" and not _has_bf16():
        logger.warning_once("This processor has no bf16 arithmetic: precision='bf16' takes longer here than 'fp32'")
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), bar, half:
        for batch in batches:
            batch = batch.to(device, non_blocking=True)
            if batch.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            out = model(batch)
            parts.append(tuple(out[name].cpu() for name in outputs))
            bar.update(len(batch))
    return [torch.cat(column).float().numpy() for column in zip(*parts, strict=True)]


def _has_bf16() -> bool:
    """Whether the processor computes in bf16 itself, as far as torch tells; unknown counts as yes."""
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return known is None or bool(known())


def _ahead(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same batches, each prepared while the model is at the one before."""
    with ThreadPoolExecutor(1) as pool:
        remaining = iter(batches)
        coming = pool.submit(next, remaining, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, remaining, None)
            yield batch


__all__ = ["PRECISIONS", "Embeddings", "embed_dataset", "encode", "pixel_batches", "run_model", "training_cohort"]
