"""Evaluation under the options of training: no image is left out, and an undefined metric ends nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback

from idml_hf import IDMLForMetricLearning, IDMLImageProcessor, IDMLTrainer, IDMLTrainingArguments
from idml_hf.data import EvalImages, TrainImages, load_retrieval_data, training_transform
from idml_hf.training.evaluating_trainer import EvaluatingTrainer


@pytest.fixture(scope="module")
def images() -> Any:
    train = load_retrieval_data("emoji-mini", check_images=False).train
    return train.select(train.labels < 7).renumbered()


def make_trainer(output: Any, images: Any, cls: Any = IDMLTrainer, **arguments: Any) -> Any:
    torch.manual_seed(0)
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=32)
    model = IDMLForMetricLearning.from_backbone(
        "test_resnet", pretrained=False, embedding_dim=8, num_train_classes=images.num_classes
    )
    defaults = {
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 16,
        "num_train_epochs": 3,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return cls(
        model,
        IDMLTrainingArguments(str(output), **(defaults | arguments)),
        train_dataset=TrainImages(images, training_transform(32, flip=0), seed=0),
        eval_dataset=EvalImages(images, processor),
        processing_class=processor,
    )


def of_images(metrics: dict[str, Any]) -> dict[str, Any]:
    timing = ("runtime", "per_second", "preparation")
    return {key: value for key, value in metrics.items() if not any(word in key for word in timing)}


@pytest.mark.parametrize(
    "options",
    [
        {"dataloader_drop_last": True},
        {"dataloader_drop_last": True, "per_device_eval_batch_size": 1000},
        {"eval_do_concat_batches": False},
        {"batch_eval_metrics": True},
        {"prediction_loss_only": True},
        {"eval_accumulation_steps": 1},
        {"dataloader_drop_last": True, "dataloader_num_workers": 1, "dataloader_persistent_workers": True},
        {"remove_unused_columns": False, "include_for_metrics": ["inputs", "loss"]},
    ],
    ids=str,
)
def test_options_of_training_leave_no_image_out(tmp_path: Any, images: Any, options: dict[str, Any]) -> None:
    assert len(images) % 16
    expected = of_images(make_trainer(tmp_path, images).evaluate())
    assert expected["eval_num_queries"] + expected["eval_num_lone_queries"] == len(images)
    trainer = make_trainer(tmp_path, images, **options)
    assert of_images(trainer.evaluate()) == pytest.approx(expected, nan_ok=True)
    assert len(trainer.predict(trainer.eval_dataset).label_ids) == len(images)
    # the options are those of training again
    assert {name: getattr(trainer.args, name) for name in options} == options


def test_a_loader_that_leaves_out_images_is_noticed(tmp_path: Any, images: Any) -> None:
    trainer = make_trainer(tmp_path, images)
    loader = torch.utils.data.DataLoader(
        trainer.eval_dataset, batch_size=16, drop_last=True, collate_fn=trainer.data_collator
    )
    with pytest.raises(RuntimeError, match=f"saw {len(images) // 16 * 16} of {len(images)} images"):
        trainer.evaluation_loop(loader, "Evaluation")


class Scripted(IDMLTrainer):
    """Its best-model metric has these values, one an evaluation."""

    values: list[float | None]

    def _measure(self, *arguments: Any) -> dict[str, Any]:
        return {"r_auroc": self.values.pop(0)}


@pytest.mark.parametrize("undefined", [None, math.nan])
@pytest.mark.parametrize(
    "script", ["first", *(pytest.param(when, marks=pytest.mark.slow) for when in ("middle", "last", "always"))]
)
def test_a_metric_that_is_undefined_ends_no_training(
    tmp_path: Any, images: Any, script: str, undefined: float | None
) -> None:
    values: dict[str, list[float | None]] = {
        "first": [undefined, 0.6, 0.5],
        "middle": [0.6, undefined, 0.5],
        "last": [0.5, 0.6, undefined],
        "always": [undefined] * 3,
    }
    trainer = make_trainer(
        tmp_path,
        images,
        Scripted,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="r_auroc",
        greater_is_better=True,
        lr_scheduler_type="reduce_lr_on_plateau",
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=5))
    trainer.values = list(values[script])
    trainer.train()
    assert trainer.state.epoch == 3 and trainer.values == []
    assert trainer.state.best_metric == (None if script == "always" else 0.6)


def test_a_metric_that_does_not_exist_is_still_an_error(tmp_path: Any, images: Any) -> None:
    trainer = make_trainer(
        tmp_path, images, Scripted, eval_strategy="epoch", save_strategy="best", metric_for_best_model="nonsense"
    )
    trainer.values = [0.5] * 3
    with pytest.raises(KeyError, match="nonsense"):
        trainer.train()


def test_what_selects_is_named_with_and_without_its_prefix() -> None:
    for name in ("recall_at_1", "eval_recall_at_1"):
        trainer = SimpleNamespace(args=SimpleNamespace(metric_for_best_model=name))
        assert EvaluatingTrainer._best_metric.fget(trainer) == "eval_recall_at_1"  # type: ignore[attr-defined]
