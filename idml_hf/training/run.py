"""A whole training run: data, model, training, evaluation, and the folder that is left."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging

from idml_hf.data import EvalImages
from idml_hf.errors import one_of
from idml_hf.files import read_json, write_json
from idml_hf.hub.card import write_model_card
from idml_hf.hub.record import METRICS_FILE, RUN_FILE, run_record
from idml_hf.hub.trained_on import TrainedOn
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.losses import loss_class
from idml_hf.modeling_idml import IDMLPreTrainedModel
from idml_hf.processes import is_first_process, join_processes, launched_processes

from .arguments import ARGUMENTS, IDMLTrainingArguments
from .checkpoints import (
    check_resumed,
    data_fingerprint,
    last_complete_checkpoint,
    record_start,
    remove_checkpoints,
    was_started,
)
from .curve import plot_training
from .declaration import declared, typed
from .deterministic_trainer import DeterministicTrainer
from .effective import effective_settings
from .feature_store import READ_BATCH, SHARD_SIZE, store_features
from .frozen_trunk import fit_heads, on_vectors
from .models import build_model
from .sampler import fitting_batch_size
from .settings import Run
from .stored_data import VectorData, run_on_vectors
from .tasks import TASKS, TestResult

logger = logging.get_logger(__name__)

CHECKPOINTS = "checkpoints"
_ARRIVING = ".arriving-"
# arguments of the trainer that are settings of a run under another name
_TAKEN = {
    "output_dir": "output",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "dataloader_num_workers": "workers",
    "bf16": "precision",
    "fp16": "precision",
    "torch_compile": "compile",
    "resume_from_checkpoint": "resume",
}


def train(run: Run, progress: bool = True) -> dict[str, Any]:
    """Train a model as `run` says, evaluate it on the test data, and write everything to `run.output`.

    The folder then holds the model and its image processor (`IDMLModel.from_pretrained(output)` loads it, or for a
    classifier `pipeline("image-classification", model=output)`), `metrics.json`, `run.json` (the settings and the
    training log), pictures and the model card. While training, it holds checkpoints, from which `resume=True` goes on;
    they are removed at the end.

    Args:
        run: The settings.
        progress: Whether to show progress bars.

    Returns:
        The metrics.

    Raises:
        FileExistsError: if the folder holds a run already, and neither `resume` nor `overwrite` is set.
        ImportError: if the tracker is not installed, or the module of a loss or a data set is not there.
        FloatingPointError: if the loss is not finite.
    """
    started = time.monotonic()
    if run.loss is not None:
        loss_class(run.loss, trusted=True)
    progress = progress and is_first_process()
    output, task = Path(run.output), TASKS[run.task]
    check_output(run)
    if run.resume and is_finished(output):
        if is_first_process():
            remove_checkpoints(output / CHECKPOINTS)  # what a run killed at its very end has left
        logger.warning(f"The run in {output} is finished; --overwrite makes it anew")
        return read_json(output / METRICS_FILE)
    checkpoint = prepare_output(run)
    data: Any
    if run.features is not None:
        run, data = run_on_vectors(run)
    else:
        data = task.load(run)
    task.check(data)
    _check_tracker(run.report_to)
    if not len(data.test):
        logger.warning("All classes train, so none is left to measure on")
    run = _with_fitting_batch(run, len(data.train))
    set_seed(run.seed)
    model, processor, trunk_weights = build_model(run, data.train.class_names)
    if isinstance(data, VectorData):
        trunk_weights = data.trunk_weights
    settings, fingerprint = effective_settings(run, model.config), data_fingerprint(data)
    if checkpoint is not None:
        check_resumed(output / CHECKPOINTS, settings, fingerprint)
    first = is_first_process()
    if first:
        record_start(output / CHECKPOINTS, settings, fingerprint)
    with _tensorboard_files_in(output / "tensorboard"):
        if run.frozen_trunk:
            log, speed = _fit_heads(run, model, processor, data, progress)
        else:
            trainer = build_trainer(run, model, processor, data, progress)
            result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            log, speed = trainer.state.log_history, result.metrics.get("train_samples_per_second")
    trained = task.result(model)
    if first:
        # whatever becomes of the evaluation, what was trained is there
        trained_on = TrainedOn.of(data.train) | TrainedOn.read(run.model)
        save_model(output, trained, None if trained.config.takes_vectors else processor, trained_on)
    if not len(data.test):
        tested = TestResult({"protocol": data.protocol})
    elif isinstance(data, VectorData):
        tested = task.test(on_vectors(trained, data.test.width), None, data, progress)
    else:
        tested = task.test(trained, processor, data, progress)
    metrics = {
        "dataset": data.name,
        **tested.metrics,
        **{name: settings[name] for name in task.named_settings},
        "trunk_weights": trunk_weights,
        "train_images_per_second": speed,
        "seconds": time.monotonic() - started,
    }
    if first:
        record = run_record(settings, [_json_ready(entry) for entry in log], processes=launched_processes())
        save_results(output, record, metrics, tested)
        remove_checkpoints(output / CHECKPOINTS)
    return metrics


def _with_fitting_batch(run: Run, num_images: int) -> Run:
    """The run with a batch size of which no epoch leaves out many images, which is said."""
    per_class = run.trainer.get("images_per_class", IDMLTrainingArguments.images_per_class)
    fitting = fitting_batch_size(num_images, run.batch_size, max(1, int(per_class)), launched_processes())
    if fitting == run.batch_size:
        return run
    logger.warning(
        f"Batches of {fitting} images instead of {run.batch_size}: an epoch of the {num_images} training images would "
        f"leave out {num_images % (run.batch_size * launched_processes())} of them"
    )
    return replace(run, batch_size=fitting)


def _check_tracker(name: str) -> None:
    """Make sure, before anything is trained, that the tracker is installed.

    Raises:
        ImportError: if it is not.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ImportError(f"--report-to {name} needs the package {name}: pip install 'idml-hf[{name}]'")


@contextmanager
def _tensorboard_files_in(folder: Path) -> Iterator[None]:
    """Where transformers writes them, unless the user says otherwise: not among the checkpoints, which are removed."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


def _fit_heads(
    run: Run, model: Any, processor: IDMLImageProcessor, data: Any, progress: bool
) -> tuple[list[dict[str, Any]], float]:
    """Fit the heads to the features of a backbone that stays as it is; the log, and training images per second."""
    started = time.monotonic()
    args = training_arguments(run, progress=progress, save_strategy="no", save_steps=500)
    if isinstance(data, VectorData):
        stored = data.features
    else:
        stored = store_features(
            model.idml,
            processor,
            {"train": data.train},
            Path(run.output) / CHECKPOINTS / "features",
            degraded_share=args.degraded_share if model.config.ranks_uncertainty else 0.0,
            seed=run.seed,
            batch_size=READ_BATCH,
            # a shard at least for each process
            shard_size=min(SHARD_SIZE, -(-len(data.train) // launched_processes())),
            num_workers=run.workers,
            progress=progress,
        ).train
    log = fit_heads(model, stored, args, run.head)
    return log, len(data.train) / (time.monotonic() - started)


def _json_ready(entry: dict[str, Any]) -> dict[str, Any]:
    """A line of the log, with None for what is undefined, since JSON has no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}


def is_finished(output: Path) -> bool:
    """Whether a folder holds a run that has come to its end."""
    return (output / METRICS_FILE).is_file() and not was_started(output / CHECKPOINTS)


def check_output(run: Run) -> None:
    """Make sure that nothing is overwritten unasked.

    Raises:
        FileExistsError: if the folder holds a run already, and neither `resume` nor `overwrite` is set.
    """
    output = Path(run.output)
    if run.overwrite or run.resume:
        return
    if (output / METRICS_FILE).exists() or last_complete_checkpoint(output / CHECKPOINTS) is not None:
        raise FileExistsError(f"{output} holds a run already: --resume goes on with it, --overwrite replaces it")


def prepare_output(run: Run) -> Path | None:
    """Remove the checkpoints that no run goes on from, and give the one that this run goes on from."""
    output = Path(run.output)
    state = join_processes(bool(run.trainer.get("use_cpu")))
    checkpoint = last_complete_checkpoint(output / CHECKPOINTS) if run.resume else None
    # no process may remove what another one still looks at
    state.wait_for_everyone()
    if checkpoint is None:
        if run.resume:
            logger.warning(f"There is no checkpoint in {output}; training starts at the beginning")
        if state.is_main_process:
            remove_checkpoints(output / CHECKPOINTS)
        state.wait_for_everyone()
    return checkpoint


def build_trainer(
    run: Run, model: Any, processor: IDMLImageProcessor, data: Any, progress: bool = True
) -> DeterministicTrainer:
    """The trainer of a run."""
    task = TASKS[run.task]
    validation = None if data.validation is None else EvalImages(data.validation, processor)
    images, augmentation = task.training_images(run, data.train, processor)
    return task.trainer_class(
        model,
        training_arguments(run, None if validation is None else task.trainer_class.main_metric, progress),
        train_dataset=images,
        eval_dataset=validation,
        augmentation=augmentation,
        processing_class=processor,
    )


def training_arguments(
    run: Run, best_metric: str | None = None, progress: bool = True, **own: Any
) -> IDMLTrainingArguments:
    """The trainer's arguments.

    Args:
        run: The settings.
        best_metric: The metric on validation data that selects the best checkpoint; None means the last is kept.
        progress: Whether to show progress bars.
        own: Arguments that replace those of the run.

    Raises:
        ValueError: for a key of `run.trainer` that is no argument, or has a setting of its own, or another type.
    """
    arguments_class = ARGUMENTS[run.task]
    known = declared(arguments_class)
    settings = {name: getattr(run, name) for name in declared(Run) if name in known}
    given = {name: value for name, value in settings.items() if value is not None}
    save: dict[str, Any] = {"save_strategy": "epoch" if run.save_steps is None else "steps"}
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
        "dataloader_num_workers": run.workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "bf16": run.precision == "bf16",
        "fp16": run.precision == "fp16",
        "torch_compile": run.compile,
        "save_total_limit": 1,
        "logging_steps": 10,
        "logging_first_step": True,
        "disable_tqdm": not progress,
        **given,
        **save,
        **_back_door(run, known, set(settings)),
        **own,
    }
    return arguments_class(**arguments)


def _back_door(run: Run, known: dict[str, Any], settings: set[str]) -> dict[str, Any]:
    """The further arguments that a run names under `trainer`."""
    own_names = {name: name for name in settings if declared(Run)[name][0].metadata["task"] in (None, run.task)}
    checked = {}
    for key, value in run.trainer.items():
        one_of("trainer argument", key, list(known))
        if key in (taken := own_names | _TAKEN):
            raise ValueError(f"trainer may not hold {key}: it is the setting {taken[key]}")
        checked[key] = typed(f"trainer argument {key}", value, known[key][1])
    return checked


def save_model(
    output: Path, model: IDMLPreTrainedModel, processor: IDMLImageProcessor | None, trained_on: TrainedOn
) -> None:
    """Put a trained model into a run's folder; results of another one that lie there do not count any more."""
    with _arriving_together(output) as new:
        model.save_pretrained(new)
        if processor is not None:
            processor.save_pretrained(new)
        trained_on.write(new)
        (output / METRICS_FILE).unlink(missing_ok=True)
        for weights in output.glob("model*.safetensors*"):
            # parts of larger weights that lay here
            if not (new / weights.name).exists():
                weights.unlink()


def save_results(output: Path, record: dict[str, Any], metrics: dict[str, Any], tested: TestResult) -> None:
    """Write what is known of a trained model; `metrics.json` marks a folder whose results are whole."""
    with _arriving_together(output) as new:
        write_json(new / RUN_FILE, record)
        plot_training(record["log"], new / "training_curve.png")
        for name, draw in tested.pictures.items():
            draw(new / name)
        write_json(new / METRICS_FILE, metrics)
        shutil.copyfile(output / "config.json", new / "config.json")
        write_model_card(new, home=output)


@contextmanager
def _arriving_together(output: Path) -> Iterator[Path]:
    """A folder whose files move to `output` when the block ends, the metrics last; none of them if it fails."""
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(f"{_ARRIVING}*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=_ARRIVING, dir=output))
    try:
        yield new
        files = [path for path in new.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == METRICS_FILE):
            place = output / path.relative_to(new)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


__all__ = [
    "CHECKPOINTS",
    "build_trainer",
    "is_finished",
    "prepare_output",
    "save_model",
    "save_results",
    "train",
    "training_arguments",
]
