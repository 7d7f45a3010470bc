"""The trainer of classifiers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from idml_hf.errors import one_of
from idml_hf.evaluation.classification import classification_metrics

from .arguments import IDMLTrainingArguments
from .classification_mixing import MIXES, BatchMixing
from .sampler import RandomBatchSampler
from .trainer import IDMLTrainer


@dataclass
class ClassificationArguments(IDMLTrainingArguments):
    """[`IDMLTrainingArguments`] and what classification adds.

    Args:
        mix: `"none"`, `"mixup"` or `"cutmix"`, of each batch with itself.
        mix_alpha: lam ~ Beta(alpha, alpha).
        mix_probability: Share of the batches that are mixed.
        decay_all: Let weight decay act on biases and normalisation too, as plain SGD does.
    """

    mix: str = field(default="none", metadata={"help": "none, mixup or cutmix"})
    mix_alpha: float = field(default=1.0, metadata={"help": "lam ~ Beta(alpha, alpha)"})
    mix_probability: float = field(default=1.0, metadata={"help": "Share of the batches that are mixed"})
    decay_all: bool = field(default=False, metadata={"help": "Weight decay on biases and normalisation too"})

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("mix", self.mix, MIXES)
        if self.mixup:
            raise ValueError('mixup is a term of retrieval losses; classification takes mix="mixup"')
        if self.mix_alpha <= 0 or not 0 <= self.mix_probability <= 1:
            raise ValueError(
                f"mix_alpha must be positive and mix_probability in [0, 1], not {self.mix_alpha} and "
                f"{self.mix_probability}"
            )


class ClassificationTrainer(IDMLTrainer):
    """Trains [`IDMLForImageClassification`], with Mixup or CutMix, and evaluates it by `classification_metrics`.

    Args:
        model: An [`IDMLForImageClassification`].
        args: [`ClassificationArguments`].
        train_dataset, processing_class: As for [`IDMLTrainer`].
        eval_dataset: [`idml_hf.data.EvalImages`] of the classes that are trained on.
    """

    args: ClassificationArguments

    def _train_batch_sampler(self) -> RandomBatchSampler:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        images = len(self.train_dataset)
        return RandomBatchSampler(images, self.args.per_device_train_batch_size, seed)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that decay."""
        if self.args.decay_all:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    @cached_property
    def _mixing(self) -> BatchMixing | None:
        args = self.args
        if args.mix == "none":
            return None
        return BatchMixing(args.mix, self.model.config.num_labels, args.mix_alpha, args.mix_probability)

    def _mix(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        if self._mixing is None:
            return {}
        images, labels = self._mixing(inputs["pixel_values"], inputs["labels"], self.args.seed, *place)
        return {"pixel_values": images, "labels": labels}

    def _predictions(self, out: Any) -> tuple[Tensor, ...]:
        return out.logits, out.uncertainty

    def _measure(self, predictions: tuple[np.ndarray, ...], labels: np.ndarray, images: Any) -> dict[str, Any]:
        logits, uncertainty = predictions
        return dict(classification_metrics(logits, labels, uncertainty))


__all__ = ["ClassificationArguments", "ClassificationTrainer"]
