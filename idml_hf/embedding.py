"""Embedding of many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from .data import EvalImages, ImageSet
from .image_processing_idml import IDMLImageProcessor
from .modeling_idml import IDMLModel, IDMLPreTrainedModel


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


def _stack(samples: list[dict[str, Any]]) -> Tensor:
    return torch.stack([sample["pixel_values"] for sample in samples])


def embed_dataset(
    model: IDMLModel,
    processor: IDMLImageProcessor,
    dataset: ImageSet | Sequence[Any],
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> Embeddings:
    """Embed all images of a data set, in order.

    Args:
        model: The model; it is put into evaluation mode and on `device`.
        processor: Its image processor.
        dataset: An [`idml_hf.data.ImageSet`], or a sequence of PIL images.
        batch_size: Images at a time.
        device: Where to compute; `None` means a GPU if there is one.
        num_workers: Processes that decode.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: if there are no images.

    Example:
        >>> from PIL import Image
        >>> from idml_hf import IDMLImageProcessor, IDMLModel
        >>> model = IDMLModel.from_backbone("resnet18", pretrained=False, embedding_dim=16)
        >>> processor = IDMLImageProcessor.from_backbone("resnet18", image_size=32)
        >>> embed_dataset(model, processor, [Image.new("RGB", (40, 40))], progress=False).semantic.shape
        (1, 16)
    """
    outputs = ("semantic_embeds", "uncertainty_embeds", "uncertainty", "semantic_norm")
    columns = run_model(
        model,
        processor,
        dataset,
        outputs,
        "Embedding",
        batch_size=batch_size,
        device=device,
        num_workers=num_workers,
        progress=progress,
    )
    return Embeddings(*columns)


def run_model(
    model: IDMLPreTrainedModel,
    processor: IDMLImageProcessor,
    dataset: ImageSet | Sequence[Any],
    outputs: Sequence[str],
    title: str,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    progress: bool = True,
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
    if len(dataset) == 0:
        raise ValueError("There are no images to embed")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = model.to(device).eval()
    loader = DataLoader(
        EvalImages(dataset, processor),
        batch_size=batch_size,
        collate_fn=_stack,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    parts: list[tuple[Tensor, ...]] = []
    bar = tqdm(total=len(dataset), desc=title, unit="image", disable=not progress)
    with torch.inference_mode(), bar:
        for pixel_values in loader:
            pixel_values = pixel_values.to(device, model.dtype, non_blocking=True)
            out = model(pixel_values.contiguous(memory_format=torch.channels_last))
            parts.append(tuple(out[name].cpu() for name in outputs))
            bar.update(len(pixel_values))
    return [torch.cat(column).float().numpy() for column in zip(*parts, strict=True)]


__all__ = ["Embeddings", "embed_dataset", "run_model"]
