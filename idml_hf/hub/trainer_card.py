"""The card of a model that a trainer pushes, which has no folder of a run yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idml_hf.files import write_text

from .card import is_generated, render_card
from .private_data import without_private_data
from .record import CARD_FILE, RunRecord

_ARGUMENTS = (
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "batch_sampling",
    "images_per_class",
    "learning_rate",
    "learning_rate_multipliers",
    "lr_scheduler_type",
    "lr_step_epochs",
    "warmup_steps",
    "weight_decay",
    "optim",
    "mixup",
    "frozen_trunk_epochs",
    "bf16",
    "fp16",
    "seed",
)


def write_trainer_card(
    trainer: Any,
    *,
    model_name: str | None = None,
    tags: str | Sequence[str] = (),
    dataset: str | Sequence[str] | None = None,
) -> Path:
    """Write `README.md` into the trainer's output folder from its state: the settings and the last evaluation.

    Args:
        trainer: a [`~transformers.Trainer`] of a model of this package.
        model_name: what the card calls the model; None: the name of the folder.
        tags: more tags.
        dataset: name of the data, which the trainer does not know.

    A card that is there and was not written by a program is left alone.
    """
    args = trainer.args
    card = Path(args.output_dir) / CARD_FILE
    if card.is_file() and not is_generated(card.read_text(encoding="utf-8")):
        return card
    name = model_name or Path(args.output_dir).resolve().name
    location = getattr(trainer, "hub_model_id", None) or args.hub_model_id or str(args.output_dir)
    text = render_card(
        trainer_record(trainer, dataset), location, name, tags=[tags] if isinstance(tags, str) else tags
    )
    write_text(card, text)
    return card


def trainer_record(trainer: Any, dataset: str | Sequence[str] | None = None) -> RunRecord:
    """What a trainer knows of its model: the settings that shape it, and the last evaluation."""
    args = trainer.args
    config = trainer.accelerator.unwrap_model(trainer.model).config.to_dict()
    config["architectures"] = [type(trainer.accelerator.unwrap_model(trainer.model)).__name__]
    settings = {name: getattr(args, name, None) for name in _ARGUMENTS}
    settings["lr_scheduler_type"] = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    settings["optim"] = str(getattr(args.optim, "value", args.optim))
    if dataset is not None:
        settings["dataset"] = dataset if isinstance(dataset, str) else ", ".join(dataset)
    return RunRecord(
        without_private_data(config), _last_evaluation(trainer.state.log_history), without_private_data(settings)
    )


def _last_evaluation(log: list[dict[str, Any]]) -> dict[str, Any]:
    for entry in reversed(log):
        metrics = {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith("eval_")}
        if metrics:
            return metrics | {"split": "evaluation"}
    return {}


__all__ = ["trainer_record", "write_trainer_card"]
