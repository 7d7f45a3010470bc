"""What runs of both kinds, retrieval and classification, have in common."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers.utils import logging

from idml_hf.errors import one_of
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLPreTrainedModel

from .arguments import IDMLTrainingArguments
from .checkpoints import last_complete_checkpoint
from .recipe import TrainingRun

logger = logging.get_logger(__name__)

CHECKPOINTS = "checkpoints"

Arguments = TypeVar("Arguments", bound=IDMLTrainingArguments)


def prepare_output(run: TrainingRun) -> Path | None:
    """The checkpoint to go on from, after making sure that nothing is overwritten unasked.

    Raises:
        FileExistsError: if the folder holds a run already, and neither `resume` nor `overwrite` is set.
    """
    output = Path(run.output)
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


def build_on_trunk(
    model_class: type[IDMLPreTrainedModel], run: TrainingRun, config: dict[str, Any]
) -> tuple[Any, IDMLImageProcessor, str]:
    """A model with fresh heads, its image processor, and where the trunk's weights come from."""
    processor = IDMLImageProcessor.from_backbone(run.backbone, run.image_size, run.crop_pct)
    if run.weights is not None:
        return (
            model_class.from_backbone(run.backbone, weights=run.weights, **config),
            processor,
            Path(run.weights).name,
        )
    if run.pretrained is not False:
        try:
            return model_class.from_backbone(run.backbone, **config), processor, "pretrained"
        except OSError as error:
            if run.pretrained:
                raise
            logger.warning(f"{str(error).split(' Give ')[0]} Training starts from random weights.")
    return model_class.from_backbone(run.backbone, pretrained=False, **config), processor, "random"


def training_arguments(
    run: TrainingRun, arguments_class: type[Arguments], best_metric: str | None, progress: bool, **own: Any
) -> Arguments:
    """The trainer's arguments.

    Args:
        run: The settings.
        arguments_class: Class of the result.
        best_metric: The metric on validation data that selects the best checkpoint; None means the last is kept.
        progress: Whether to show progress bars.
        own: What only this kind of run sets; `run.trainer` overrides it, and all else.

    Raises:
        ValueError: for a key of `run.trainer` that is not a field of `arguments_class`.
    """
    for key in run.trainer:
        one_of("trainer argument", key, [f.name for f in dataclasses.fields(arguments_class)])
    save: dict[str, Any] = {"save_strategy": "epoch"}
    if run.save_steps is not None:
        save = {"save_strategy": "steps", "save_steps": run.save_steps}
    if best_metric is not None:
        save |= {
            "eval_strategy": save["save_strategy"],
            "eval_steps": run.save_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": best_metric,
            "greater_is_better": True,
        }
    arguments = {
        "output_dir": str(Path(run.output) / CHECKPOINTS),
        "num_train_epochs": run.epochs,
        "per_device_train_batch_size": run.batch_size,
        "per_device_eval_batch_size": run.batch_size,
        "learning_rate": run.learning_rate,
        "weight_decay": run.weight_decay,
        "seed": run.seed,
        "dataloader_num_workers": run.workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "bf16": run.precision == "bf16",
        "fp16": run.precision == "fp16",
        "torch_compile": run.compile,
        "save_total_limit": 1,
        "logging_steps": 10,
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": not progress,
        **save,
        **own,
        **run.trainer,
    }
    return arguments_class(**arguments)


def save_run(
    run: TrainingRun,
    model: IDMLPreTrainedModel,
    processor: IDMLImageProcessor,
    metrics: dict[str, Any],
    log: list[dict[str, Any]],
) -> None:
    """Write the model and what is known of it; `metrics.json` marks a folder whose results are whole."""
    from idml_hf.hub.card import write_model_card

    from .curve import plot_training

    output = Path(run.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").unlink(missing_ok=True)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    record = {"run": dataclasses.asdict(run), "log": log}
    (output / "run.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    plot_training(log, output / "training_curve.png")
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    write_model_card(output)


__all__ = ["CHECKPOINTS", "build_on_trunk", "prepare_output", "save_run", "training_arguments"]
