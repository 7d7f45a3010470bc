"""A whole training run: data, model, training, evaluation, and the folder that is left."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging

from ..configuration_idml import one_of
from ..data import RetrievalData, TrainImages, load_retrieval_data, training_transform
from ..evaluation import RetrievalEvaluator
from ..image_processing_idml import SMALL_IMAGE, IDMLImageProcessor
from ..modeling_idml import IDMLModel
from ..modeling_metric_learning import IDMLForMetricLearning
from ..retrieval.embed import EvalImages, embed_dataset
from .arguments import IDMLTrainingArguments
from .checkpoints import last_complete_checkpoint
from .recipe import RetrievalRun
from .trainer import IDMLTrainer

logger = logging.get_logger(__name__)

CHECKPOINTS = "checkpoints"


def train_retrieval(run: RetrievalRun, progress: bool = True) -> dict[str, Any]:
    """Train a model as `run` says, evaluate it on the test classes, and write everything to `run.output`.

    The folder then holds the model and its image processor (so `IDMLModel.from_pretrained(output)` loads it),
    `metrics.json`, `run.json` (the settings and the training log) and `training_curve.png`. While training, it holds
    checkpoints, from which `resume=True` goes on; they are removed at the end.

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
    output = Path(run.output)
    checkpoint = _prepare_output(run, output)
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
    metrics = evaluate_retrieval(model.idml, processor, data, progress)
    metrics |= {
        "loss": run.loss,
        "form": run.form,
        "seed": run.seed,
        "trunk_weights": trunk_weights,
        "train_images_per_second": result.metrics.get("train_samples_per_second"),
        "seconds": time.monotonic() - started,
    }
    if trainer.is_world_process_zero():
        save_run(run, model.idml, processor, metrics, trainer.state.log_history, output)
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    return metrics


def _prepare_output(run: RetrievalRun, output: Path) -> Path | None:
    """The checkpoint to go on from, after making sure that nothing is overwritten unasked."""
    checkpoint = last_complete_checkpoint(output / CHECKPOINTS)
    if run.overwrite:
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
        return None
    if run.resume:
        if checkpoint is None:
            logger.warning(f"There is no checkpoint in {output}; training starts at the beginning")
        return checkpoint
    if checkpoint is not None or (output / "metrics.json").exists():
        raise FileExistsError(f"{output} holds a run already: --resume goes on with it, --overwrite replaces it")
    return None


def build_model(run: RetrievalRun, num_train_classes: int) -> tuple[IDMLForMetricLearning, IDMLImageProcessor, str]:
    """The model to train, its image processor, and where the trunk's weights come from."""
    config = {
        "loss": run.loss,
        "loss_kwargs": run.loss_kwargs,
        "form": run.form,
        "tau": run.tau,
        "uncertainty_activation": run.uncertainty_activation,
        "uncertainty_level": run.uncertainty_level,
        "freeze_batch_norm": run.freeze_batch_norm,
        "num_train_classes": num_train_classes,
    }
    if run.model is not None:
        model = IDMLForMetricLearning.from_pretrained(run.model, **config)
        processor = IDMLImageProcessor.from_pretrained(run.model)
        return model, processor, run.model
    chosen = {"embedding_dim": run.embedding_dim, "pool": run.pool, "image_size": run.image_size}
    config |= {k: v for k, v in chosen.items() if v is not None}
    processor = IDMLImageProcessor.from_backbone(run.backbone, run.image_size, run.crop_pct)
    if run.weights is not None:
        model = IDMLForMetricLearning.from_backbone(run.backbone, weights=run.weights, **config)
        return model, processor, Path(run.weights).name
    if run.pretrained is not False:
        try:
            return IDMLForMetricLearning.from_backbone(run.backbone, **config), processor, "pretrained"
        except OSError as error:
            if run.pretrained:
                raise
            logger.warning(f"{str(error).split(' Give ')[0]} Training starts from random weights.")
    return IDMLForMetricLearning.from_backbone(run.backbone, pretrained=False, **config), processor, "random"


def build_trainer(
    run: RetrievalRun,
    model: IDMLForMetricLearning,
    processor: IDMLImageProcessor,
    data: RetrievalData,
    progress: bool = True,
) -> IDMLTrainer:
    """The trainer of a run."""
    size = processor.crop_size["height"]
    interpolation = "bilinear" if size <= SMALL_IMAGE else "bicubic"
    transform = training_transform(size, scale=(run.crop_scale, 1.0), flip=run.flip, interpolation=interpolation)
    validation = None if data.validation is None else EvalImages(data.validation, processor)
    save: dict[str, Any] = {"save_strategy": "epoch"}
    if run.save_steps is not None:
        save = {"save_strategy": "steps", "save_steps": run.save_steps}
    if validation is not None:
        save |= {
            "eval_strategy": save["save_strategy"],
            "eval_steps": run.save_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": "recall_at_1",
            "greater_is_better": True,
        }
    for key in run.trainer:
        one_of("trainer argument", key, [f.name for f in dataclasses.fields(IDMLTrainingArguments)])
    arguments = {
        "output_dir": str(Path(run.output) / CHECKPOINTS),
        "num_train_epochs": run.epochs,
        "per_device_train_batch_size": run.batch_size,
        "per_device_eval_batch_size": run.batch_size,
        "learning_rate": run.learning_rate,
        "weight_decay": run.weight_decay,
        "mixup": run.mixup,
        "seed": run.seed,
        "dataloader_num_workers": run.workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "bf16": run.precision == "bf16",
        "fp16": run.precision == "fp16",
        "torch_compile": run.compile,
        "save_total_limit": 1,
        "logging_steps": 10,
        "report_to": "none",
        "disable_tqdm": not progress,
        **save,
        **run.trainer,
    }
    return IDMLTrainer(
        model,
        IDMLTrainingArguments(**arguments),
        train_dataset=TrainImages(data.train, transform, run.seed),
        eval_dataset=validation,
        processing_class=processor,
    )


def evaluate_retrieval(
    model: IDMLModel, processor: IDMLImageProcessor, data: RetrievalData, progress: bool = True
) -> dict[str, Any]:
    """The metrics of a model on the test classes."""
    embeddings = embed_dataset(model, processor, data.test, progress=progress)
    evaluator = RetrievalEvaluator(group_column=data.group_column, clustering=True)
    return {"dataset": data.name, **evaluator(embeddings, data.test.labels, groups=data.test.groups)}


def save_run(
    run: RetrievalRun,
    model: IDMLModel,
    processor: IDMLImageProcessor,
    metrics: dict[str, Any],
    log: list[dict[str, Any]],
    output: Path,
) -> None:
    """Write the model and what is known of it; `metrics.json` comes last, so it marks a folder that is whole."""
    from .curve import plot_training

    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").unlink(missing_ok=True)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    record = {"run": dataclasses.asdict(run), "log": log}
    (output / "run.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    plot_training(log, output / "training_curve.png")
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")


__all__ = ["build_model", "build_trainer", "evaluate_retrieval", "save_run", "train_retrieval"]
