"""Train the heads alone, on features of a backbone that stays as it is: seconds after one pass over the images."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PrinterCallback

from idml_hf.configuration_idml import VECTORS, IDMLConfig
from idml_hf.data import FeatureRows, ImageSet, generator
from idml_hf.embedding import pixel_batches
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel
from idml_hf.modeling_metric_learning import IDMLForMetricLearning

from .arguments import IDMLTrainingArguments
from .closed_form import discriminant_head
from .degradation import degraded_views
from .trainer import IDMLTrainer

MOST_STEPS = 300
"""Batches after which an uncertainty head on stored features has learnt what it can: on held-out training classes of
two data sets more of them made it worse."""

# keeps the stream of draws apart from those of batches and degradations
_STREAM = 0xF2A


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """What a frozen backbone says of N training images.

    Args:
        features: `(N, F)`, the vectors that the heads read: an array, or [`idml_hf.data.RowFiles`].
        degraded: Those of M images degraded, and of the same images degraded more, `(M, F)` both; or None.
        labels: int64 `(N,)`.
        groups: int64 `(N,)`, or None.
    """

    features: Any
    degraded: tuple[Any, Any] | None
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
    first_batch: int = 0,
    batch_size: int = 64,
    num_workers: int = 0,
    title: str = "Reading features",
    progress: bool = True,
) -> FrozenFeatures:
    """Run the backbone once over the images, as in evaluation, and keep its features in half precision.

    Args:
        model: Whose backbone, and whose `pool`.
        processor: Its image processor.
        images: The training images.
        degraded_share: Share of the images of which two degraded copies are read as well.
        seed: Seed of their degradation.
        first_batch: Number of the first batch, by which its degradations are drawn.
        batch_size: Images at a time.
        num_workers: Processes that decode.
        title: Title of the progress bar.
        progress: Whether to show a progress bar.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device, memory_format=torch.channels_last).eval()
    rows, less, more = [], [], []
    bar = tqdm(total=len(images), desc=title, unit="image", disable=not progress)
    with bar:
        batches = pixel_batches(processor, images, device, batch_size, num_workers)
        for step, pixels in enumerate(batches, start=first_batch):
            pixels = pixels.to(device, memory_format=torch.channels_last)
            rows.append(_features(model, pixels))
            if degraded_share:
                first, second = degraded_views(pixels, degraded_share, seed, step).chunk(2)
                less.append(_features(model, first))
                more.append(_features(model, second))
            bar.update(len(pixels))
    degraded = (np.concatenate(less), np.concatenate(more)) if degraded_share else None
    return FrozenFeatures(np.concatenate(rows), degraded, images.labels, images.groups)


def _features(model: IDMLModel, pixels: Tensor) -> np.ndarray:
    return model.features(pixels)[1].half().cpu().numpy()


Head = tuple[np.ndarray, np.ndarray]
"""Weight and bias of a semantic head."""


def fit_heads(
    model: IDMLForMetricLearning,
    stored: FrozenFeatures,
    args: IDMLTrainingArguments,
    head: str,
    start: Head | None = None,
) -> list[dict[str, Any]]:
    """Fit the heads of `model` to stored features of its backbone.

    The semantic head is fitted in closed form, and stays so under `head="closed_form"`, unless the metric has to train
    the uncertainty (`uncertainty_ranking=0` with an introspective form); under `"trained"` the loss goes on from
    there. The uncertainty head is trained as ever; where it is all that is trained, for at most `MOST_STEPS` batches,
    or as many as `args.max_steps` says.

    Args:
        model: The model; its heads, loss and memory change.
        stored: Features of its training images.
        args: Arguments of the trainer.
        head: `"closed_form"` or `"trained"`.
        start: What `closed_form` gives for these features, where it is known already.

    Returns:
        The trainer's log; empty if there was nothing to train.
    """
    weight, bias = start or closed_form(stored.features, stored.labels, model.config.embedding_dim)
    twin = on_vectors(model, stored.features.shape[1])
    with torch.no_grad():
        twin.idml.semantic_head.weight.copy_(torch.from_numpy(weight))
        twin.idml.semantic_head.bias.copy_(torch.from_numpy(bias))
    metric_trains = not model.config.ranks_uncertainty and model.config.form != "none"
    fixed = head == "closed_form" and not metric_trains
    if fixed:
        twin.idml.semantic_head.requires_grad_(False)
        twin.loss = _NoLoss()
        args = _with_most_steps(args, len(stored.labels))
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
    model.load_state_dict(heads_of(twin.cpu()), strict=False)
    return log


def closed_form(features: Any, labels: Any, embedding_dim: int) -> Head:
    """The semantic head in closed form, with outputs of mean norm 1, a scale at which a loss can go on from it."""
    rows = _UnitRows(features)
    weight, bias = discriminant_head(rows, labels, embedding_dim)
    scale = 1 / np.linalg.norm(rows[: 2**14] @ weight.T + bias, axis=1).mean()
    return weight * scale, bias * scale


class _UnitRows:
    """The rows of a matrix with unit norm, as the backbone of vectors hands them on."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape = rows, rows.shape

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: slice) -> np.ndarray:
        block = np.asarray(self.rows[key], dtype=np.float32)
        return block / np.linalg.norm(block, axis=1, keepdims=True).clip(1e-12)


def _with_most_steps(args: IDMLTrainingArguments, images: int) -> IDMLTrainingArguments:
    steps = args.num_train_epochs * -(-images // (args.per_device_train_batch_size * args.world_size))
    if args.max_steps > 0 or steps <= MOST_STEPS:
        return args
    args = copy.copy(args)
    args.max_steps = MOST_STEPS
    return args


def on_vectors(model: Any, width: int) -> Any:
    """A model with the heads, loss and memory of `model`, which takes the vectors that they read.

    Raises:
        ValueError: if its heads read more than one vector an image.
    """
    config = model.config
    if not config.takes_vectors and config.pool != "statistics":
        raise ValueError(
            f"heads are fitted to stored features under pool 'statistics' alone, not {config.pool!r}: its vector is "
            "all that they read of an image"
        )
    own = {"backbone": VECTORS, "backbone_kwargs": {"width": width}, "pool": "avg", "image_size": None}
    twin = type(model)(IDMLConfig.from_dict(config.to_dict() | own))
    twin.load_state_dict(heads_of(model))
    return twin


def heads_of(model: Any) -> dict[str, Tensor]:
    """The weights of a model without those of its backbone."""
    backbone = {id(x) for x in model.trunk.state_dict(keep_vars=True).values()}
    return {name: x for name, x in model.state_dict(keep_vars=True).items() if id(x) not in backbone}


class _NoLoss(nn.Module):
    """In the place of the loss of a head that is fixed: nothing is learnt from it, so nothing is computed."""

    def forward(self, semantic: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return semantic.new_zeros(())


class _HeadTrainer(IDMLTrainer):
    """Trains heads on vectors; degraded copies come from the store."""

    def __init__(
        self, model: Any, args: IDMLTrainingArguments, *, degraded: tuple[Any, Any] | None, **kwargs: Any
    ) -> None:
        super().__init__(model, args, **kwargs)
        self.degraded = degraded
        if args.disable_tqdm:
            # many heads are fitted in a row, and a line for each would hide how that goes on
            self.remove_callback(PrinterCallback)

    def _images(self, pixel_values: Tensor) -> Tensor:
        return pixel_values

    def _degrade(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        model = self.accelerator.unwrap_model(self.model)
        if self.degraded is None or getattr(model, "ranking", None) is None:
            return {}
        number = max(1, round(self.args.degraded_share * len(inputs["labels"])))
        rng = generator(self.args.seed, *place, _STREAM)
        chosen = rng.integers(len(self.degraded[0]), size=number)
        vectors = torch.from_numpy(np.concatenate([rows[chosen] for rows in self.degraded]).astype(np.float32))
        return {"degraded_features": model.read_degraded(vectors.to(inputs["pixel_values"].device))}


__all__ = ["FrozenFeatures", "fit_heads", "heads_of", "on_vectors", "read_features"]
