"""What users of transformers' Trainer expect: tables of `datasets`, compute_metrics, model_init, PEFT, and so on."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from idml_hf import IDMLForImageClassification, IDMLForMetricLearning, IDMLImageProcessor, IDMLTrainer
from idml_hf.data import EvalImages, TrainImages, load_retrieval_data, training_transform
from idml_hf.training import ClassificationArguments, ClassificationTrainer, IDMLTrainingArguments
from idml_hf.training.callbacks import innermost

SIZE = 32
COMMON = {"per_device_train_batch_size": 16, "max_steps": 2, "report_to": "none", "save_strategy": "no"}
COMMON |= {"disable_tqdm": True, "use_cpu": True, "logging_steps": 1}


@pytest.fixture(scope="module")
def images():
    full = load_retrieval_data("emoji-mini", check_images=False).train
    return full.select(full.labels < 6).renumbered()


@pytest.fixture(scope="module")
def table(images) -> datasets.Dataset:
    """Pictures and classes under names of the user's own, and what is of no use here."""
    made = images.to_dataset().remove_columns("group").rename_columns({"image": "picture", "label": "kind"})
    return made.add_column("note", ["x"] * len(made))


@pytest.fixture(scope="module")
def processor():
    return IDMLImageProcessor.from_backbone("test_resnet", image_size=SIZE)


def metric_model(**config):
    torch.manual_seed(0)
    config = {"embedding_dim": 8, "num_train_classes": 6} | config
    return IDMLForMetricLearning.from_backbone("test_resnet", pretrained=False, **config)


def classifier(**config):
    torch.manual_seed(0)
    return IDMLForImageClassification.from_backbone("test_resnet", pretrained=False, num_labels=6, **config)


class TestTables:
    def test_a_table_trains_as_the_images_do(self, tmp_path, table, images, processor):
        losses = []
        for data in (table, images, table.with_format("numpy"), table.to_iterable_dataset()):
            arguments = IDMLTrainingArguments(str(tmp_path), **COMMON)
            trainer = IDMLTrainer(
                metric_model(), arguments, train_dataset=data, eval_dataset=data, processing_class=processor
            )
            trainer.train()
            losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
            assert trainer.evaluate()["eval_num_queries"] == len(images)
            assert trainer.evaluate(table.select(range(12)))["eval_num_queries"] == 12
        # groups are of the image set alone: they take no part in the first steps' loss but for the ranking
        assert losses[0] == losses[2] == losses[3] and len(losses[0]) == 2
        assert np.isfinite(losses).all()

    def test_a_classifier_trains_on_a_table(self, tmp_path, table, processor):
        arguments = ClassificationArguments(str(tmp_path), **COMMON)
        data = {"train_dataset": table, "eval_dataset": {"a": table, "b": table.select(range(8))}}
        trainer = ClassificationTrainer(classifier(), arguments, processing_class=processor, **data)
        trainer.train()
        metrics = trainer.evaluate()
        assert 0 <= metrics["eval_a_top1"] <= 1 and 0 <= metrics["eval_b_top1"] <= 1
        assert trainer.predict(table.select(range(5))).predictions[0].shape == (5, 6)

    def test_pictures_need_a_processor(self, tmp_path, table):
        with pytest.raises(ValueError, match="needs processing_class"):
            IDMLTrainer(metric_model(), IDMLTrainingArguments(str(tmp_path), **COMMON), train_dataset=table)

    @pytest.mark.parametrize("build", [metric_model, classifier])
    def test_the_stock_trainer_on_a_table_with_a_transform(self, tmp_path, table, processor, build):
        def prepare(rows):
            pixels = processor(rows["picture"], return_tensors="pt").pixel_values
            return {"pixel_values": pixels, "labels": rows["kind"]}

        def measure(result):
            assert result.label_ids.shape == (len(table),)
            first = result.predictions if isinstance(result.predictions, np.ndarray) else result.predictions[0]
            return {"images": len(first)}

        trainer = Trainer(
            build(),
            TrainingArguments(str(tmp_path), remove_unused_columns=False, **COMMON),
            train_dataset=table.with_transform(prepare),
            eval_dataset=table.with_transform(prepare),
            compute_metrics=measure,
        )
        trainer.train()
        assert trainer.evaluate()["eval_images"] == len(table)

    def test_the_usual_recipe_for_a_classifiers_predictions(self, tmp_path, images, processor):
        def accuracy(result):
            return {"accuracy": float((np.argmax(result.predictions, axis=-1) == result.label_ids).mean())}

        model = classifier()
        arguments = TrainingArguments(str(tmp_path), remove_unused_columns=False, **COMMON)
        trainer = Trainer(model, arguments, eval_dataset=EvalImages(images, processor), compute_metrics=accuracy)
        assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1
        # and nothing of it is saved
        assert "keys_to_ignore_at_inference" not in model.config.to_dict()
        assert "uncertainty" not in metric_model().config.keys_to_ignore_at_inference


class TestEvaluation:
    def test_drop_last_drops_training_images_alone(self, tmp_path, images, processor):
        arguments = IDMLTrainingArguments(
            str(tmp_path), dataloader_drop_last=True, per_device_eval_batch_size=7, **COMMON
        )
        trainer = IDMLTrainer(
            metric_model(), arguments, eval_dataset=EvalImages(images, processor), processing_class=processor
        )
        assert len(images) % 7
        assert trainer.evaluate()["eval_num_queries"] == len(images)
        assert len(trainer.predict(EvalImages(images, processor)).predictions[0]) == len(images)
        assert trainer.args.dataloader_drop_last is True

    @pytest.mark.parametrize("best", ["r_auroc", "eval_r_auroc"])
    def test_a_best_metric_that_is_undefined_once_does_not_end_the_training(
        self, tmp_path, images, processor, monkeypatch, best
    ):
        values = iter([None, 0.5, None, 0.4])
        measured = lambda self, predictions, labels, images: {"r_auroc": next(values), "other": None}  # noqa: E731
        monkeypatch.setattr(IDMLTrainer, "_measure", measured)
        settings = COMMON | {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
        arguments = IDMLTrainingArguments(
            str(tmp_path), eval_strategy="steps", eval_steps=1, load_best_model_at_end=True,
            metric_for_best_model=best, greater_is_better=True, save_total_limit=1, **settings,
        )  # fmt: skip
        trainer = IDMLTrainer(
            metric_model(), arguments, processing_class=processor, eval_dataset=EvalImages(images, processor),
            train_dataset=TrainImages(images, training_transform(SIZE)), callbacks=[EarlyStoppingCallback(9)],
        )  # fmt: skip
        trainer.train()
        assert trainer.state.global_step == 4
        assert trainer.state.best_metric == 0.5 and trainer.state.best_model_checkpoint.endswith("checkpoint-2")


class TestModels:
    @pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
    @pytest.mark.parametrize("build", [metric_model, classifier])
    def test_gradient_checkpointing_changes_nothing_but_memory(self, tmp_path, images, processor, stock, build):
        losses = []
        for checkpointing in (False, True):
            settings = COMMON | {"gradient_checkpointing": checkpointing}
            # statistics of a batch that is read twice are taken twice
            model = build(freeze_batch_norm=True)
            data = TrainImages(images, training_transform(SIZE, processor.image_mean, processor.image_std))
            if stock:
                arguments = TrainingArguments(str(tmp_path), remove_unused_columns=False, **settings)
                trainer = Trainer(model, arguments, train_dataset=data)
            else:
                kinds = {metric_model: (IDMLTrainer, IDMLTrainingArguments)}
                trainer_class, arguments_class = kinds.get(build, (ClassificationTrainer, ClassificationArguments))
                arguments = arguments_class(str(tmp_path), **settings)
                trainer = trainer_class(model, arguments, train_dataset=data, processing_class=processor)
            trainer.train()
            assert model.is_gradient_checkpointing == checkpointing
            losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    def test_model_init_builds_the_model_anew_for_each_training(self, tmp_path, images, processor):
        trainer = IDMLTrainer(
            model_init=lambda: metric_model(),
            args=IDMLTrainingArguments(str(tmp_path), mixup=True, **COMMON),
            train_dataset=images,
            processing_class=processor,
        )
        weights = []
        for _ in range(2):
            trainer.train()
            weights.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())

    def test_search_of_hyper_parameters(self, tmp_path, images, processor):
        pytest.importorskip("optuna")
        trainer = IDMLTrainer(
            model_init=lambda: metric_model(),
            args=IDMLTrainingArguments(str(tmp_path), eval_strategy="steps", eval_steps=2, **COMMON),
            train_dataset=images,
            eval_dataset=images,
            processing_class=processor,
        )
        space = lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)}  # noqa: E731
        best = trainer.hyperparameter_search(space, n_trials=2, backend="optuna")
        assert 0 <= best.objective <= 1 and "learning_rate" in best.hyperparameters

    def test_adapters_of_peft(self, tmp_path, images, processor):
        peft = pytest.importorskip("peft")
        trained = {"target_modules": ["semantic_head"], "modules_to_save": ["uncertainty_head", "loss"]}
        # an adapter does not hold the statistics and the memory of the model that it is for
        own = {"freeze_batch_norm": True, "reference_weight": 0.0}
        config = peft.LoraConfig(**trained, r=4, init_lora_weights=False)
        model = peft.get_peft_model(metric_model(**own), config)
        frozen = {k: v.clone() for k, v in model.named_parameters() if not v.requires_grad}
        arguments = IDMLTrainingArguments(
            str(tmp_path), **(COMMON | {"frozen_trunk_epochs": 1, "num_train_epochs": 2, "max_steps": -1})
        )
        trainer = IDMLTrainer(model, arguments, train_dataset=images, eval_dataset=images, processing_class=processor)
        before = {k: v.clone() for k, v in model.named_parameters() if v.requires_grad}
        trainer.train()
        after = dict(model.named_parameters())
        # the end of frozen epochs thaws nothing that the adapters leave frozen
        assert all(torch.equal(v, after[k]) for k, v in frozen.items())
        assert sum(not torch.equal(v, after[k]) for k, v in before.items()) > 3
        assert 0 <= trainer.evaluate()["eval_recall_at_1"] <= 1
        assert isinstance(innermost(model), IDMLForMetricLearning)
        trainer.save_model(tmp_path / "adapter")
        again = peft.PeftModel.from_pretrained(metric_model(**own), tmp_path / "adapter").eval()
        x = torch.randn(2, 3, SIZE, SIZE)
        with torch.no_grad():
            ours = model.eval()(pixel_values=x).semantic_embeds
            torch.testing.assert_close(again(pixel_values=x).semantic_embeds, ours, atol=1e-5, rtol=0)

    def test_what_was_frozen_stays_so_when_the_trunk_thaws(self, tmp_path, images, processor):
        model = metric_model()
        first = next(p for p in model.trunk.parameters() if p.ndim == 4)
        first.requires_grad_(False)
        before = first.clone()
        arguments = IDMLTrainingArguments(
            str(tmp_path), **(COMMON | {"frozen_trunk_epochs": 1, "num_train_epochs": 2, "max_steps": -1})
        )
        IDMLTrainer(model, arguments, train_dataset=images, processing_class=processor).train()
        assert torch.equal(first, before) and not first.requires_grad
        assert any(p.requires_grad for p in model.trunk.parameters())
