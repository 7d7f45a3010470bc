"""The trainer's small parts: parameter groups, schedule, arguments, recipes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from idml_hf.training import Run, load_recipe
from idml_hf.training.arguments import IDMLTrainingArguments
from idml_hf.training.effective import effective_settings
from idml_hf.training.optim import parameter_groups, step_schedule


def test_parameter_groups():
    model = nn.ModuleDict({"trunk": nn.Linear(2, 2), "loss": nn.Module()})
    model["loss"].proxies = nn.Parameter(torch.ones(3, 2))
    model["trunk"].weight.requires_grad_(False)
    groups = parameter_groups(model, 0.1, 0.5, ["trunk.weight", "loss.proxies"], {r"(^|\.)proxies$": 100.0})
    found = {(g["lr"], g["weight_decay"]): [p.shape for p in g["params"]] for g in groups}
    # the frozen weight is there, so that it can thaw
    assert found == {(0.1, 0.5): [(2, 2)], (0.1, 0.0): [(2,)], (10.0, 0.5): [(3, 2)]}


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [([2], [1, 1, 0.5, 0.5, 0.25, 0.25]), ([1, 4], [1, 0.5, 0.5, 0.5, 0.25, 0.25])],
)
def test_step_schedule(epochs, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = step_schedule(optimizer, epochs, 0.5, steps_per_epoch=3)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(3):
            optimizer.step()
            schedule.step()
    assert rates == expected
    with pytest.raises(ValueError, match="must be positive"):
        step_schedule(optimizer, [0], 0.5, 3)


class TestArguments:
    def test_classes_per_batch(self, tmp_path):
        args = IDMLTrainingArguments(
            str(tmp_path), per_device_train_batch_size=12, images_per_class=3, batch_sampling="pk", use_cpu=True
        )
        assert args.classes_per_batch == 4

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"batch_sampling": "pj"}, "Did you mean 'pk'"),
            ({"batch_sampling": "pk", "per_device_train_batch_size": 10}, "must be a multiple of"),
            ({"mixup": True, "mixup_alpha": 0.0}, "mixup_alpha must be positive"),
        ],
    )
    def test_what_is_refused(self, arguments, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            IDMLTrainingArguments(str(tmp_path), use_cpu=True, **arguments)


class TestRecipe:
    def test_parts_are_put_together(self, tmp_path):
        (tmp_path / "parts").mkdir()
        (tmp_path / "parts" / "data.yaml").write_text(
            "dataset: emoji-mini\nepochs: 3\ntrainer: {lr_step_gamma: 0.1}\n"
        )
        (tmp_path / "parts" / "loss.yaml").write_text("loss: contrastive\nloss_kwargs: {neg_margin: 0.5}\n")
        (tmp_path / "run.yaml").write_text(
            "base: [parts/data.yaml, parts/loss.yaml]\nepochs: 5\ntrainer: {lr_step_epochs: [2]}\n"
        )
        assert load_recipe(tmp_path / "run.yaml") == {
            "dataset": "emoji-mini",
            "epochs": 5,
            "trainer": {"lr_step_gamma": 0.1, "lr_step_epochs": [2]},
            "loss": "contrastive",
            "loss_kwargs": {"neg_margin": 0.5},
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epoch: 5\n", "recipe.yaml: Unknown recipe key 'epoch'. Did you mean 'epochs'"),
            ("- a\n", "must hold keys and values"),
            ("a: [\n", "recipe.yaml is not YAML"),
            ("base: recipe.yaml\n", "is its own base"),
        ],
    )
    def test_what_is_refused(self, text, message, tmp_path):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_recipe(tmp_path / "recipe.yaml")
        with pytest.raises(FileNotFoundError, match="No recipe at"):
            load_recipe(tmp_path / "nothing.yaml")

    def test_a_recipe_does_not_run_code(self, tmp_path):
        (tmp_path / "recipe.yaml").write_text("epochs: !!python/object/apply:os.system ['true']\n")
        with pytest.raises(ValueError, match="is not YAML"):
            load_recipe(tmp_path / "recipe.yaml")

    def test_settings_survive_json(self):
        run = Run(output="x", form="released")
        settings = effective_settings(run)
        assert settings["uncertainty_activation"] == "l2"
        assert json.loads(json.dumps(run.__dict__))["form"] == "released"
        assert json.loads(json.dumps(settings)) == settings
        with pytest.raises(ValueError, match="output folder"):
            Run()
