"""The two tasks a model is trained for: their data, how images are prepared, and what is measured at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch.utils.data import Dataset

from idml_hf.confidence.held_out import held_out_confidence
from idml_hf.configuration_idml import REFERENCE_WEIGHT
from idml_hf.data import (
    ClassificationData,
    DeviceAugmentation,
    ImageSet,
    RetrievalData,
    SmallImages,
    VectorSet,
    cropped_images,
    load_classification_data,
    load_retrieval_data,
)
from idml_hf.embedding import Embeddings, embed_dataset, training_cohort
from idml_hf.evaluation.evaluator import Evaluation, RetrievalEvaluator
from idml_hf.evaluation.plots import risk_coverage_plot
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.index.calibration_images import labelled_queries
from idml_hf.model_evaluation import evaluate_classifier, evaluate_images
from idml_hf.modeling_idml import IDMLPreTrainedModel

from .deterministic_trainer import DeterministicTrainer
from .settings import Run
from .trainer import ClassificationTrainer, IDMLTrainer


@dataclass(frozen=True)
class TestResult:
    """What was measured on the test data.

    Args:
        metrics: Ready for JSON.
        pictures: File name -> function that draws it to a path.
    """

    metrics: dict[str, Any]
    pictures: dict[str, Callable[[Path], None]] = field(default_factory=dict)


class Task(ABC):
    """What differs between the tasks, as far as a run is concerned."""

    trainer_class: type[DeterministicTrainer]
    named_settings: tuple[str, ...]
    """The settings that stand beside the metrics."""

    @abstractmethod
    def load(self, run: Run) -> Any:
        """The data of a run, with `name`, `train`, `validation` and `test`."""

    @abstractmethod
    def check(self, data: Any) -> None:
        """Make sure, before anything is trained, that what is trained can be measured.

        Raises:
            ValueError: if it cannot.
        """

    @abstractmethod
    def result(self, model: IDMLPreTrainedModel) -> IDMLPreTrainedModel:
        """The part of a trained model that is kept."""

    @abstractmethod
    def test(
        self, model: IDMLPreTrainedModel, processor: IDMLImageProcessor | None, data: Any, progress: bool = True
    ) -> TestResult:
        """Measure what was trained on the test data."""

    def training_images(
        self, run: Run, images: ImageSet, processor: IDMLImageProcessor
    ) -> tuple[Dataset, DeviceAugmentation | None]:
        """Training images as `run.augmentation` says, and what crops them on the device.

        With `augment_on_device` the images come whole, and the second is for the trainer; else it is None.

        Raises:
            ValueError: for small images of another size than the model takes.
        """
        chosen: dict[str, Any] = {"seed": run.seed} | ({} if run.flip is None else {"flip": run.flip})
        if run.augmentation == "crop":
            crop: dict[str, Any] = {"crop_scale": run.crop_scale, "on_device": run.augment_on_device}
            return cropped_images(images, processor, **crop, **chosen)
        return self._small_images(run, images, processor.crop_size["height"], chosen), None

    def _small_images(self, run: Run, images: ImageSet, size: int, chosen: dict[str, Any]) -> SmallImages:
        padding = 0 if run.augmentation == "none" else run.padding
        small = SmallImages(images, **(chosen if padding is None else chosen | {"padding": padding}))
        if tuple(small.pixels.shape[2:]) != (size, size):
            height, width = small.pixels.shape[2:]
            raise ValueError(
                f"--augmentation {run.augmentation} takes images as they are, {width}x{height} pixels, but the model "
                f"takes {size}x{size}: set --image-size, or --augmentation crop"
            )
        return small


class RetrievalTask(Task):
    """Embeddings, measured by searching classes that training has not seen."""

    trainer_class = IDMLTrainer
    named_settings = ("loss", "form", "seed")

    def load(self, run: Run) -> RetrievalData:
        """The data of a run."""
        assert run.dataset is not None
        return load_retrieval_data(
            run.dataset,
            root=run.root,
            group_column=run.group_column,
            test_fraction=run.test_fraction,
            validation_fraction=run.validation_fraction,
            skip_bad_images=run.skip_bad_images,
            exclude=run.exclude,
            seed=run.seed,
        )

    def check(self, data: Any) -> None:
        """Make sure that some image of each set to measure on has another one of its class to find."""
        for name, images in (("validation", data.validation), ("test", data.test)):
            if images is not None and len(images):
                check_findable(images, f"{data.name}, {name} images")

    def result(self, model: Any) -> IDMLPreTrainedModel:
        """The model without its loss."""
        return model.idml

    def test(self, model: Any, processor: IDMLImageProcessor | None, data: Any, progress: bool = True) -> TestResult:
        """Retrieval, clustering and uncertainty on the test classes."""
        on_vectors = isinstance(data.test, VectorSet)
        # what degrades images does nothing to vectors, and heads on them are fitted in less time than a probe is
        not_for_vectors: dict[str, Any] = {"ambiguous_images": 0, "ceiling_splits": 0} if on_vectors else {}
        evaluator = RetrievalEvaluator(
            (1, 2, 4, 8, 10),
            group_column=data.group_column,
            clustering=True,
            robustness_images=0,
            foreign_images=0,
            pairs=0,
            **not_for_vectors,
        )
        evaluation = evaluate_images(model, processor, data.test, evaluator=evaluator, progress=progress)
        said = evaluation.embeddings
        held_out = held_out_confidence(labelled_queries(cast(Embeddings, said), data.test, training_cohort(model)))
        metrics = evaluation.metrics
        if not on_vectors:
            metrics |= reference_metrics(model, processor, data, evaluation, progress)
        confidence = None
        if held_out is not None:
            metrics |= held_out.metrics
            confidence = np.full(len(data.test), np.nan)
            confidence[evaluation.ranking.counted] = held_out.confidence

        def draw(path: Path) -> None:
            plot = risk_coverage_plot(evaluation.ranking, said.uncertainty, said.semantic_norm, confidence)
            plot.savefig(path, dpi=110)

        return TestResult(metrics, {"risk_coverage.png": draw})


class ClassificationTask(Task):
    """Classes, measured on other images of the same classes."""

    trainer_class = ClassificationTrainer
    named_settings = ("form", "mix", "seed")

    def load(self, run: Run) -> ClassificationData:
        """The data of a run."""
        assert run.dataset is not None
        return load_classification_data(
            run.dataset,
            root=run.root,
            validation_fraction=run.validation_fraction,
            skip_bad_images=run.skip_bad_images,
            exclude=run.exclude,
            # what is kept in memory is decoded in full at the start anyway
            check_images=run.augmentation == "crop" or run.skip_bad_images,
            seed=run.seed,
        )

    def check(self, data: ClassificationData) -> None:
        """Make sure that there are classes to tell apart, and images to measure on."""
        if len(data.class_names) < 2:
            raise ValueError(f"{data.name}: there are no two classes to tell apart")
        if not len(data.test):
            raise ValueError(f"{data.name}: there are no images to measure on")

    def result(self, model: IDMLPreTrainedModel) -> IDMLPreTrainedModel:
        """The whole model."""
        return model

    def test(
        self, model: Any, processor: IDMLImageProcessor | None, data: ClassificationData, progress: bool = True
    ) -> TestResult:
        """Accuracy, calibration and uncertainty on the test images."""
        measured = evaluate_classifier(model, processor, data.test, progress=progress)
        return TestResult({"protocol": "plain", **measured})


def check_findable(images: ImageSet | VectorSet, what: str) -> None:
    """Make sure that some image has another one of its class, and of another group where there are groups.

    Raises:
        ValueError: if none has.
    """
    places, where = images.labels, ""
    if images.groups is not None:
        # several images of a class and a group do not count for one another
        places = np.unique(np.stack([images.labels, images.groups], axis=1), axis=0)[:, 0]
        where = f" in another {images.group_column or 'group'}"
    if np.unique(places, return_counts=True)[1].max(initial=0) < 2:
        raise ValueError(f"{what}: no image has another one of its class{where}, so retrieval cannot be measured")


REFERENCE_CHANGES = ("recall_at_1", "recall_at_2", "recall_at_10", "r_precision", "map_at_r", "nmi", "r_auroc")
"""What is measured without the memory of training images and with it, and compared on equal terms alone."""


def reference_metrics(
    model: Any, processor: IDMLImageProcessor | None, data: Any, evaluation: Evaluation, progress: bool = True
) -> dict[str, Any]:
    """What the model's memory of its training images does for retrieval, whatever its `reference_weight` is.

    Returns:
        Metrics of retrieval as `without_reference_NAME` and `with_reference_NAME`; none for a model without a memory.
    """
    config = model.config
    if model.reference is None:
        return {}
    own = config.reference_weight
    config.reference_weight = 0.0 if own else REFERENCE_WEIGHT
    try:
        other = embed_dataset(model, processor, data.test, progress=progress)
    finally:
        config.reference_weight = own
    clustering = "nmi" in evaluation.metrics
    evaluator = RetrievalEvaluator((1, 2, 10), group_column=data.group_column, clustering=clustering)
    changed = evaluator.evaluate_embeddings(other, data.test.labels, groups=data.test.groups).metrics
    sides = (changed, evaluation.metrics) if own else (evaluation.metrics, changed)
    kinds = ("without_reference", "with_reference")
    both = [name for name in REFERENCE_CHANGES if name in evaluation.metrics and name in changed]
    return {f"{kind}_{name}": side[name] for kind, side in zip(kinds, sides, strict=True) for name in both}


TASKS: dict[str, Task] = {"retrieval": RetrievalTask(), "classification": ClassificationTask()}
"""The tasks by name."""

__all__ = [
    "REFERENCE_CHANGES",
    "TASKS",
    "ClassificationTask",
    "RetrievalTask",
    "Task",
    "TestResult",
    "reference_metrics",
]
