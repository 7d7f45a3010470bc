"""Train the heads alone, on features of a backbone that stays as it is: seconds after one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from idml_hf.configuration_idml import IDMLConfig
from idml_hf.data import FeatureRows, ImageSet, generator
from idml_hf.embedding import pixel_batches
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel
from idml_hf.modeling_metric_learning import IDMLForMetricLearning

from .arguments import IDMLTrainingArguments
from .closed_form import discriminant_head
from .degradation import degraded_views
from .trainer import IDMLTrainer

# keeps the stream of draws apart from those of batches and degradations
_STREAM = 0xF2A


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """What a frozen backbone says of N training images.

    Args:
        features: float16 `(N, F)`, the vector that the heads read.
        degraded: float16 `(2 M, F)`, of M images degraded, then of the same images degraded more; or None.
        labels: int64 `(N,)`.
        groups: int64 `(N,)`, or None.
    """

    features: np.ndarray
    degraded: np.ndarray | None
    labels: np.ndarray
    groups: np.ndarray | None = None


@torch.inference_mode()
def read_features(
    model: IDMLModel,
    processor: IDMLImageProcessor,
    images: ImageSet,
    *,
    degraded_share: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = True,
) -> FrozenFeatures:
    """Run the backbone once over the images, as in evaluation.

    Args:
        model: Whose backbone, and whose `pool`.
        processor: Its image processor.
        images: The training images.
        degraded_share: Share of the images of which two degraded copies are read as well.
        seed: Seed of their degradation.
        batch_size: Images at a time.
        num_workers: Processes that decode.
        progress: Whether to show a progress bar.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device, memory_format=torch.channels_last).eval()
    rows, less, more = [], [], []
    bar = tqdm(total=len(images), desc="Reading features", unit="image", disable=not progress)
    with bar:
        for step, pixels in enumerate(pixel_batches(processor, images, device, batch_size, num_workers)):
            pixels = pixels.to(device, memory_format=torch.channels_last)
            rows.append(_features(model, pixels))
            if degraded_share:
                first, second = degraded_views(pixels, degraded_share, seed, step).chunk(2)
                less.append(_features(model, first))
                more.append(_features(model, second))
            bar.update(len(pixels))
    degraded = np.concatenate(less + more) if degraded_share else None
    return FrozenFeatures(np.concatenate(rows), degraded, images.labels, images.groups)


def _features(model: IDMLModel, pixels: Tensor) -> np.ndarray:
    return model.features(pixels)[1].half().cpu().numpy()


def fit_heads(
    model: IDMLForMetricLearning, stored: FrozenFeatures, args: IDMLTrainingArguments, head: str
) -> list[dict[str, Any]]:
    """Fit the heads of `model` to stored features of its backbone.

    The semantic head is fitted in closed form, and stays so under `head="closed_form"`, unless the metric has to train
    the uncertainty (`uncertainty_ranking=0` with an introspective form); under `"trained"` the loss goes on from
    there. The uncertainty head is trained as ever.

    Args:
        model: The model; its heads, loss and memory change.
        stored: Features of its training images.
        args: Arguments of the trainer.
        head: `"closed_form"` or `"trained"`.

    Returns:
        The trainer's log; empty if there was nothing to train.
    """
    weight, bias = discriminant_head(stored.features, stored.labels, model.config.embedding_dim)
    weight, bias = _of_unit_length(weight, bias, stored.features)
    twin = _on_vectors(model, stored.features.shape[1])
    with torch.no_grad():
        twin.idml.semantic_head.weight.copy_(torch.from_numpy(weight))
        twin.idml.semantic_head.bias.copy_(torch.from_numpy(bias))
    metric_trains = not model.config.ranks_uncertainty and model.config.form != "none"
    fixed = head == "closed_form" and not metric_trains
    if fixed:
        twin.idml.semantic_head.requires_grad_(False)
        twin.loss.requires_grad_(False)
    log: list[dict[str, Any]] = []
    if not fixed or model.config.ranks_uncertainty:
        trainer = _HeadTrainer(
            twin,
            args,
            degraded=stored.degraded,
            train_dataset=FeatureRows(stored.features, stored.labels, stored.groups),
        )
        trainer.train()
        log = trainer.state.log_history
    heads = {k: v for k, v in twin.cpu().state_dict().items() if not k.startswith("idml.backbone.")}
    model.load_state_dict(heads, strict=False)
    return log


def _of_unit_length(weight: np.ndarray, bias: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same head with outputs of mean norm 1, a scale at which a loss can go on from it."""
    some = np.asarray(features[: 2**14], dtype=np.float32)
    scale = 1 / np.linalg.norm(some @ weight.T + bias, axis=1).mean()
    return weight * scale, bias * scale


def _on_vectors(model: IDMLForMetricLearning, width: int) -> IDMLForMetricLearning:
    """A model with the heads, loss and memory of `model`, which takes the vectors that they read."""
    own = {"backbone": "vectors", "backbone_kwargs": {"width": width}, "pool": "avg", "image_size": None}
    twin = IDMLForMetricLearning(IDMLConfig.from_dict(model.config.to_dict() | own))
    heads = {k: v for k, v in model.state_dict().items() if not k.startswith("idml.backbone.")}
    twin.load_state_dict(heads)
    return twin


class _HeadTrainer(IDMLTrainer):
    """Trains heads on vectors; degraded copies come from the store."""

    def __init__(self, model: Any, args: IDMLTrainingArguments, *, degraded: np.ndarray | None, **kwargs: Any) -> None:
        super().__init__(model, args, **kwargs)
        self.degraded = None if degraded is None else degraded.reshape(2, -1, degraded.shape[1])

    def _images(self, pixel_values: Tensor) -> Tensor:
        return pixel_values

    def _degrade(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        model = self.accelerator.unwrap_model(self.model)
        if self.degraded is None or getattr(model, "ranking", None) is None:
            return {}
        number = max(1, round(self.args.degraded_share * len(inputs["labels"])))
        rng = generator(self.args.seed, *place, _STREAM)
        chosen = rng.integers(self.degraded.shape[1], size=number)
        vectors = torch.from_numpy(self.degraded[:, chosen].reshape(2 * number, -1).astype(np.float32))
        return {"degraded_features": model.read_degraded(vectors.to(inputs["pixel_values"].device))}


__all__ = ["FrozenFeatures", "fit_heads", "read_features"]
