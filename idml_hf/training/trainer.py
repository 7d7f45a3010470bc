"""The trainers of the two tasks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from idml_hf.embedding import Embeddings
from idml_hf.evaluation.classification import classification_metrics
from idml_hf.evaluation.evaluator import RetrievalEvaluator
from idml_hf.losses import is_proxy_loss

from .arguments import ClassificationArguments, IDMLTrainingArguments
from .callbacks import innermost
from .degradation import degraded_views
from .deterministic_trainer import DeterministicTrainer
from .mixing import BatchMixing, mix_batch
from .sampler import PKBatchSampler, RandomBatchSampler


class IDMLTrainer(DeterministicTrainer):
    """Trains [`IDMLForMetricLearning`]: batches, learning rates, Mixup, and evaluation by retrieval.

    Args:
        model: An [`IDMLForMetricLearning`].
        args: [`IDMLTrainingArguments`].
        train_dataset: [`idml_hf.data.TrainImages`], or any map-style data set that gives `pixel_values` and `labels`
            and has an attribute `labels`, the class of each image. It is indexed by [`idml_hf.data.Draw`]. Images that
            come as uint8 are normalised on the device. Or an [`idml_hf.data.ImageSet`] or a `datasets.Dataset` with
            pictures and classes, which is cropped and flipped at random.
        eval_dataset: [`idml_hf.data.EvalImages`], or a data set as above, of classes that are not trained on.
        processing_class: The image processor, saved with each checkpoint.
        augmentation: [`idml_hf.data.DeviceAugmentation`], for a `train_dataset` that leaves its images as they are:
            it crops and flips whole batches where the model is.

    The metrics of `evaluate()` are those of [`idml_hf.evaluation.RetrievalEvaluator`], each with the prefix `eval_`;
    so `metric_for_best_model="recall_at_1"` selects the best checkpoint.

    Raises:
        FloatingPointError: when the loss is not finite, before the weights are touched.
    """

    main_metric = "recall_at_1"
    args: IDMLTrainingArguments

    def _train_batch_sampler(self) -> RandomBatchSampler:
        automatic = self.args.batch_sampling == "auto"
        if self.args.batch_sampling == "random" or (automatic and is_proxy_loss(self.model.config.loss)):
            return super()._train_batch_sampler()
        labels = np.asarray(self.train_dataset.labels)
        classes = self.args.classes_per_batch
        if automatic:
            classes = min(classes, len(np.unique(labels)))
        return PKBatchSampler(labels, max(1, classes), self.args.images_per_class, self._sampling_seed)

    def _further_inputs(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        return self._degrade(inputs, place) | self._mix(inputs, place)

    def _mix(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        """The Mixup term's images, if it is asked for."""
        if not self.args.mixup:
            return {}
        images, labels = inputs["pixel_values"], inputs["labels"]
        return mix_batch(images, labels, self.args.mixup_alpha, self.args.seed, *place)

    def _degrade(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        """The degraded copies by which the uncertainty is trained, if it is."""
        model = innermost(self.accelerator.unwrap_model(self.model))
        if not self.args.degraded_share or getattr(model, "ranking", None) is None:
            return {}
        views = degraded_views(inputs["pixel_values"], self.args.degraded_share, self.args.seed, *place)
        with self.accelerator.autocast():
            return {"degraded_features": model.read_degraded(self._images(views))}

    def _describe_loss(self) -> str:
        return f"loss {self.model.config.loss!r}, {super()._describe_loss()}"

    def _predictions(self, out: Any) -> tuple[Tensor, ...]:
        return out.semantic_embeds, out.uncertainty_embeds, out.uncertainty, out.semantic_norm

    def _measure(self, predictions: tuple[np.ndarray, ...], labels: np.ndarray, images: Any) -> dict[str, Any]:
        evaluator = RetrievalEvaluator(group_column=getattr(images, "group_column", None))
        return evaluator(Embeddings(*predictions), labels, groups=getattr(images, "groups", None))


class ClassificationTrainer(DeterministicTrainer):
    """Trains [`IDMLForImageClassification`], with Mixup or CutMix, and evaluates it by `classification_metrics`.

    Args:
        model: An [`IDMLForImageClassification`].
        args: [`ClassificationArguments`].
        train_dataset, processing_class, augmentation: As for [`IDMLTrainer`].
        eval_dataset: [`idml_hf.data.EvalImages`] of the classes that are trained on.
    """

    arguments_class = ClassificationArguments
    main_metric = "top1"
    args: ClassificationArguments

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

    def _further_inputs(self, inputs: dict[str, Tensor], place: tuple[int, int, int]) -> dict[str, Tensor]:
        if self._mixing is None:
            return {}
        images, labels = self._mixing(inputs["pixel_values"], inputs["labels"], self.args.seed, *place)
        return {"pixel_values": images, "labels": labels}

    def _predictions(self, out: Any) -> tuple[Tensor, ...]:
        return out.logits, out.uncertainty

    def _measure(self, predictions: tuple[np.ndarray, ...], labels: np.ndarray, images: Any) -> dict[str, Any]:
        logits, uncertainty = predictions
        return dict(classification_metrics(logits, labels, uncertainty))


__all__ = ["ClassificationTrainer", "IDMLTrainer"]
