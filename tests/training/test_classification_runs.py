"""Classification runs: every recipe trains on a replica of its data, runs resume bit by bit, and learn something."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data.dataset_replicas import WRITERS, expect
from transformers import TrainerCallback

from idml_hf import IDMLForImageClassification
from idml_hf.data import ClassificationData, ImageSet, load_classification_data
from idml_hf.reproduce.plan import settings_of
from idml_hf.reproduce.tables import TABLES
from idml_hf.training import ClassificationArguments, Run, tasks, train
from idml_hf.training import run as run_module
from idml_hf.training.models import build_model
from idml_hf.training.run import build_trainer

RECIPES = Path(__file__).parents[2] / "training_scripts" / "recipes"
# trunks of the same kind that train in no time
TINY = {
    "resnet50": {"backbone": "test_resnet", "image_size": 32},
    "pyramidnet200_a240": {"backbone_kwargs": {"depth": 11, "alpha": 6}},
    "resnet50_small": {"backbone_kwargs": {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8)}},
    "resnet8_small": {},
}
CLASSIFICATION = [table for table in TABLES.values() if table.task == "classification"]


@pytest.fixture
def replica(tmp_path, monkeypatch):
    def write(name):
        expect(monkeypatch, name)
        root = tmp_path / "data"
        root.mkdir()
        return WRITERS[name](root)

    return write


@pytest.mark.parametrize(
    "table",
    [
        # one on color images, one on gray ones; the others take longer
        pytest.param(table, marks=() if table.name in ("cifar10", "fashion-mnist") else pytest.mark.slow)
        for table in CLASSIFICATION
    ],
    ids=lambda table: table.name,
)
def test_every_recipe_trains_two_steps_on_a_replica(table, replica, tmp_path):
    root = replica(settings_of(table, table.rows[0], RECIPES)["dataset"])
    for row in (table.rows[0], table.rows[5]):
        settings = settings_of(table, row, RECIPES)
        settings |= TINY[settings["backbone"]] | {"workers": 0, "epochs": 1, "root": str(root), "batch_size": 4}
        settings["trainer"] = settings["trainer"] | {"max_steps": 2, "use_cpu": True}
        output = tmp_path / row.name
        metrics = train(Run(output=str(output), **settings), progress=False)
        assert metrics["form"] == ("released_classification" if row.against else "none")
        assert 0 <= metrics["top1"] <= 1 and metrics["mix"] == row.settings["mix"]
        assert json.loads((output / "metrics.json").read_text()) == metrics
        assert IDMLForImageClassification.from_pretrained(output).config.method == settings["method"]


def patterns(per_class=24, side=32, seed=0):
    """Noise that is red, green, blue or grey."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(4), per_class)
    pixels = rng.integers(0, 200, (len(labels), side, side, 3))
    for image, label in zip(pixels, labels, strict=True):
        image[..., label : label + 1] += 50
    return ImageSet.from_arrays(pixels.astype(np.uint8), labels, ["a", "b", "c", "d"], f"patterns {seed}")


@pytest.fixture
def pattern_data(monkeypatch):
    data = ClassificationData("patterns", patterns(), None, patterns(8, seed=1))
    monkeypatch.setattr(tasks, "load_classification_data", lambda *args, **kwargs: data)
    return data


def pattern_run(output, **settings):
    defaults = {
        "dataset": "patterns",
        "backbone": "resnet8_small",
        "pretrained": False,
        "image_size": 32,
        "augmentation": "shift",
        "flip": 0.0,
        "padding": 2,
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 0.05,
    }
    trainer = {"optim": "sgd", "optim_args": "momentum=0.9", "use_cpu": True} | settings.pop("trainer", {})
    return Run(task="classification", output=str(output), trainer=trainer, **(defaults | settings))


@pytest.mark.parametrize("settings", [{}, {"mix": "cutmix", "form": "ratio"}], ids=["plain", "cutmix"])
def test_it_learns(tmp_path, pattern_data, settings):
    metrics = train(pattern_run(tmp_path, **settings), progress=False)
    assert metrics["top1"] > 0.8
    log = json.loads((tmp_path / "run.json").read_text())["log"]
    assert all(entry["uncertainty_grad_norm"] > 0 for entry in log if "loss" in entry)


def test_validation_selects_the_checkpoint(tmp_path, monkeypatch):
    data = ClassificationData("patterns", patterns(), patterns(6, seed=2), patterns(8, seed=1))
    monkeypatch.setattr(tasks, "load_classification_data", lambda *args, **kwargs: data)
    train(pattern_run(tmp_path, epochs=3, trainer={"logging_steps": 1}), progress=False)
    log = json.loads((tmp_path / "run.json").read_text())["log"]
    assert [entry["epoch"] for entry in log if "eval_top1" in entry] == [1, 2, 3]
    assert {"eval_ece", "eval_nll", "eval_aurc"} <= set(next(entry for entry in log if "eval_top1" in entry))


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path, pattern_data, monkeypatch, mix):
    settings = {"mix": mix, "mix_probability": 0.7, "epochs": 2, "save_steps": 3}
    train(pattern_run(tmp_path / "whole", **settings), progress=False)
    build = run_module.build_trainer

    def build_and_stop(*args):
        trainer = build(*args)
        trainer.add_callback(Stop())
        return trainer

    monkeypatch.setattr(run_module, "build_trainer", build_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(pattern_run(tmp_path / "cut", **settings), progress=False)
    monkeypatch.setattr(run_module, "build_trainer", build)
    # the random state of this process is now another one
    torch.manual_seed(123)
    train(pattern_run(tmp_path / "cut", resume=True, **settings), progress=False)
    a, b = (IDMLForImageClassification.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_small_images_must_have_the_models_size(tmp_path, pattern_data):
    with pytest.raises(ValueError, match=r"32x32 pixels, but the model takes 28x28: set --image-size"):
        train(pattern_run(tmp_path, image_size=28), progress=False)


def test_a_folder_is_not_overwritten_unasked(tmp_path, pattern_data):
    run = pattern_run(tmp_path, epochs=1, trainer={"max_steps": 1})
    train(run, progress=False)
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(run, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix": "cutmixx"}, "Did you mean 'cutmix'"),
        ({"mix_probability": 1.5}, "mix_probability must be at most 1"),
        ({"trainer": {"mixup": True}}, 'takes mix="mixup"'),
        ({"trainer": {"mixx": "none"}}, "Unknown trainer argument 'mixx'"),
    ],
)
def test_what_is_refused(tmp_path, pattern_data, settings, message):
    with pytest.raises(ValueError, match=message):
        train(pattern_run(tmp_path, **settings), progress=False)
    with pytest.raises(ValueError, match="Did you mean 'shift'"):
        pattern_run(tmp_path, augmentation="shfit")


def test_weight_decay_on_everything_or_not(tmp_path, pattern_data):
    groups = {}
    for decay_all in (True, False):
        run = pattern_run(tmp_path, weight_decay=0.1, trainer={"decay_all": decay_all})
        model, processor, _ = build_model(run, pattern_data.class_names)
        trainer = build_trainer(run, model, processor, pattern_data, progress=False)
        groups[decay_all] = {g["weight_decay"]: len(g["params"]) for g in trainer.create_optimizer().param_groups}
    number = len(list(model.parameters()))
    assert groups[True] == {0.1: number}
    assert set(groups[False]) == {0.1, 0.0} and sum(groups[False].values()) == number


def test_arguments_stand_in_the_trainers_record(tmp_path):
    args = ClassificationArguments(str(tmp_path), mix="cutmix", mix_probability=0.5, use_cpu=True)
    assert json.loads(args.to_json_string())["mix_probability"] == 0.5


@pytest.mark.slow
def test_fashion_mnist_of_debian_is_learnt(tmp_path):
    """An eighth of the training images, once: far above chance."""
    try:
        load_classification_data("fashion-mnist", check_images=False)
    except FileNotFoundError:
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    table = TABLES["fashion-mnist"]
    settings = settings_of(table, table.rows[1], RECIPES) | {"epochs": 1, "validation_fraction": 0.875}
    metrics = train(Run(output=str(tmp_path), **settings), progress=False)
    assert metrics["top1"] > 0.6
