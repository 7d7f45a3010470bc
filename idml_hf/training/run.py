"""A whole training run: data, model, training, evaluation, and the folder that is left."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import set_seed

from idml_hf.configuration_idml import REFERENCE_WEIGHT
from idml_hf.data import EvalImages, RetrievalData, cropped_images, load_retrieval_data
from idml_hf.embedding import embed_dataset
from idml_hf.evaluation.evaluator import Evaluation, RetrievalEvaluator
from idml_hf.evaluation.plots import risk_coverage_plot
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel
from idml_hf.modeling_metric_learning import IDMLForMetricLearning

from .arguments import IDMLTrainingArguments
from .recipe import RetrievalRun
from .run_parts import CHECKPOINTS, build_on_trunk, prepare_output, save_run, training_arguments
from .trainer import IDMLTrainer


def train_retrieval(run: RetrievalRun, progress: bool = True) -> dict[str, Any]:
    """Train a model as `run` says, evaluate it on the test classes, and write everything to `run.output`.

    The folder then holds the model and its image processor (so `IDMLModel.from_pretrained(output)` loads it),
    `metrics.json`, `run.json` (the settings and the training log), `training_curve.png`, `risk_coverage.png` and the
    model card. While training, it holds checkpoints, from which `resume=True` goes on; they are removed at the end.

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
    output = Path(run.output)
    checkpoint = prepare_output(run)
    data = load_retrieval_data(
        run.dataset,
        root=run.root,
        group_column=run.group_column,
        validation_fraction=run.validation_fraction,
        skip_bad_images=run.skip_bad_images,
        seed=run.seed,
    )
    set_seed(run.seed)
    model, processor, trunk_weights = build_model(run, data.train.num_classes)
    trainer = build_trainer(run, model, processor, data, progress)
    result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    evaluation = evaluate_retrieval(model.idml, processor, data, progress)
    metrics = {
        "dataset": data.name,
        **evaluation.metrics,
        **reference_metrics(model.idml, processor, data, evaluation, progress),
        "loss": run.loss,
        "form": run.form,
        "seed": run.seed,
        "trunk_weights": trunk_weights,
        "train_images_per_second": result.metrics.get("train_samples_per_second"),
        "seconds": time.monotonic() - started,
    }
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        embeddings = evaluation.embeddings
        plot = risk_coverage_plot(evaluation.ranking, embeddings.uncertainty, embeddings.semantic_norm)
        plot.savefig(output / "risk_coverage.png", dpi=110)
        save_run(run, model.idml, processor, metrics, trainer.state.log_history)
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    return metrics


def model_config(run: RetrievalRun, num_train_classes: int) -> dict[str, Any]:
    """The fields of [`IDMLConfig`] that a run sets."""
    config = {
        "loss": run.loss,
        "loss_kwargs": run.loss_kwargs,
        "form": run.form,
        "tau": run.tau,
        "uncertainty_activation": run.uncertainty_activation,
        "uncertainty_level": run.uncertainty_level,
        "uncertainty_head": run.uncertainty_head,
        "uncertainty_detached": run.uncertainty_detached,
        "uncertainty_ranking": run.uncertainty_ranking,
        "reference_weight": run.reference_weight,
        "freeze_batch_norm": run.freeze_batch_norm,
        "num_train_classes": num_train_classes,
    }
    if run.model is not None:
        return config
    chosen = {
        "backbone_kwargs": run.backbone_kwargs or None,
        "embedding_dim": run.embedding_dim,
        "pool": run.pool,
        "image_size": run.image_size,
    }
    return config | {k: v for k, v in chosen.items() if v is not None}


def build_model(run: RetrievalRun, num_train_classes: int) -> tuple[IDMLForMetricLearning, IDMLImageProcessor, str]:
    """The model to train, its image processor, and where the trunk's weights come from."""
    config = model_config(run, num_train_classes)
    if run.model is not None:
        model = IDMLForMetricLearning.from_pretrained(run.model, **config)
        if model.idml.reference is not None:
            # what it remembers are embeddings of other images, by the model that it was
            model.idml.reference.forget()
        return model, IDMLImageProcessor.from_pretrained(run.model), run.model
    return build_on_trunk(IDMLForMetricLearning, run, config)


def build_trainer(
    run: RetrievalRun,
    model: IDMLForMetricLearning,
    processor: IDMLImageProcessor,
    data: RetrievalData,
    progress: bool = True,
) -> IDMLTrainer:
    """The trainer of a run."""
    validation = None if data.validation is None else EvalImages(data.validation, processor)
    best_metric = None if validation is None else "recall_at_1"
    images, augmentation = cropped_images(
        data.train,
        processor,
        crop_scale=run.crop_scale,
        flip=run.flip,
        seed=run.seed,
        on_device=run.augment_on_device,
    )
    return IDMLTrainer(
        model,
        training_arguments(run, IDMLTrainingArguments, best_metric, progress, mixup=run.mixup),
        train_dataset=images,
        eval_dataset=validation,
        augmentation=augmentation,
        processing_class=processor,
    )


def evaluate_retrieval(
    model: IDMLModel, processor: IDMLImageProcessor, data: RetrievalData, progress: bool = True
) -> Evaluation:
    """What a model does on the test classes."""
    embeddings = embed_dataset(model, processor, data.test, progress=progress)
    evaluator = RetrievalEvaluator((1, 2, 4, 8, 10), group_column=data.group_column, clustering=True)
    return evaluator.evaluate_embeddings(embeddings, data.test.labels, groups=data.test.groups)


def reference_metrics(
    model: IDMLModel, processor: IDMLImageProcessor, data: RetrievalData, evaluation: Evaluation, progress: bool = True
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
    evaluator = RetrievalEvaluator((1, 2), group_column=data.group_column)
    changed = evaluator.evaluate_embeddings(other, data.test.labels, groups=data.test.groups).metrics
    names = ("recall_at_1", "recall_at_2", "r_precision", "map_at_r", "r_auroc")
    sides = (changed, evaluation.metrics) if own else (evaluation.metrics, changed)
    kinds = ("without_reference", "with_reference")
    return {f"{kind}_{name}": side[name] for kind, side in zip(kinds, sides, strict=True) for name in names}


__all__ = [
    "build_model",
    "build_trainer",
    "evaluate_retrieval",
    "model_config",
    "reference_metrics",
    "train_retrieval",
]
