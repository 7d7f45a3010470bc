"""A whole classification run: data, model, training, evaluation, and the folder that is left."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import set_seed

from idml_hf.data import (
    ClassificationData,
    DeviceAugmentation,
    EvalImages,
    ImageSet,
    SmallImages,
    cropped_images,
    load_classification_data,
)
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.model_evaluation import evaluate_classifier
from idml_hf.modeling_idml import IDMLForImageClassification

from .classification import ClassificationArguments, ClassificationTrainer
from .classification_recipe import ClassificationRun
from .run_parts import CHECKPOINTS, build_on_trunk, prepare_output, save_run, training_arguments


def train_classification(run: ClassificationRun, progress: bool = True) -> dict[str, Any]:
    """Train a classifier as `run` says, evaluate it on the test images, and write everything to `run.output`.

    The folder is as that of [`idml_hf.training.train_retrieval`]; `pipeline("image-classification", model=output)`
    loads it.

    Args:
        run: The settings.
        progress: Whether to show progress bars.

    Returns:
        The metrics.

    Raises:
        FileExistsError: if the folder holds a run already, and neither `resume` nor `overwrite` is set.
        FloatingPointError: if the loss is not finite.
    """
    started = time.monotonic()
    progress = progress and os.environ.get("RANK", "0") == "0"
    checkpoint = prepare_output(run)
    data = load_classification_data(
        run.dataset,
        root=run.root,
        validation_fraction=run.validation_fraction,
        skip_bad_images=run.skip_bad_images,
        # what is kept in memory is decoded in full at the start anyway
        check_images=run.augmentation == "crop" or run.skip_bad_images,
        seed=run.seed,
    )
    set_seed(run.seed)
    model, processor, trunk_weights = build_classifier(run, data.class_names)
    trainer = build_classification_trainer(run, model, processor, data, progress)
    result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    metrics: dict[str, Any] = {"dataset": data.name, "protocol": "plain"}
    metrics |= evaluate_classifier(model, processor, data.test, progress=progress)
    metrics |= {
        "form": run.form,
        "mix": run.mix,
        "seed": run.seed,
        "trunk_weights": trunk_weights,
        "train_images_per_second": result.metrics.get("train_samples_per_second"),
        "seconds": time.monotonic() - started,
    }
    if trainer.is_world_process_zero():
        save_run(run, model, processor, metrics, trainer.state.log_history)
        shutil.rmtree(Path(run.output) / CHECKPOINTS, ignore_errors=True)
    return metrics


def classifier_config(run: ClassificationRun, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of [`IDMLConfig`] that a run sets."""
    config = {
        "form": run.form,
        "tau": run.tau,
        "uncertainty_activation": run.uncertainty_activation,
        "uncertainty_level": run.uncertainty_level,
        "uncertainty_dim": run.uncertainty_dim,
        "freeze_batch_norm": run.freeze_batch_norm,
        "backbone_kwargs": run.backbone_kwargs or None,
        "pool": run.pool,
        "image_size": run.image_size,
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: label for label, name in enumerate(class_names)},
    }
    return {key: value for key, value in config.items() if value is not None}


def build_classifier(
    run: ClassificationRun, class_names: tuple[str, ...]
) -> tuple[IDMLForImageClassification, IDMLImageProcessor, str]:
    """The model to train, its image processor, and where the trunk's weights come from."""
    return build_on_trunk(IDMLForImageClassification, run, classifier_config(run, class_names))


def build_classification_trainer(
    run: ClassificationRun,
    model: IDMLForImageClassification,
    processor: IDMLImageProcessor,
    data: ClassificationData,
    progress: bool = True,
) -> ClassificationTrainer:
    """The trainer of a run."""
    validation = None if data.validation is None else EvalImages(data.validation, processor)
    mixing = {"mix": run.mix, "mix_alpha": run.mix_alpha, "mix_probability": run.mix_probability}
    best_metric = None if validation is None else "top1"
    images, augmentation = _training_images(run, data.train, processor)
    return ClassificationTrainer(
        model,
        training_arguments(run, ClassificationArguments, best_metric, progress, **mixing),
        train_dataset=images,
        eval_dataset=validation,
        augmentation=augmentation,
        processing_class=processor,
    )


def _training_images(
    run: ClassificationRun, images: ImageSet, processor: IDMLImageProcessor
) -> tuple[Dataset, DeviceAugmentation | None]:
    if run.augmentation == "crop":
        return cropped_images(
            images,
            processor,
            crop_scale=run.crop_scale,
            flip=run.flip,
            seed=run.seed,
            on_device=run.augment_on_device,
        )
    size = processor.crop_size["height"]
    small = SmallImages(images, run.padding if run.augmentation == "shift" else 0, run.flip, run.seed)
    if tuple(small.pixels.shape[2:]) != (size, size):
        height, width = small.pixels.shape[2:]
        raise ValueError(
            f"--augmentation {run.augmentation} takes images as they are, {width}x{height} pixels, but the model "
            f"takes {size}x{size}: set --image-size, or --augmentation crop"
        )
    return small, None


__all__ = ["build_classification_trainer", "build_classifier", "classifier_config", "train_classification"]
