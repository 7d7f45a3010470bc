"""The search over losses on stored vectors: what it leaves, that it goes on, and that `train` takes its winner."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from idml_hf.cli.main import app
from idml_hf.losses import LOSSES
from idml_hf.training import Run, load_recipe, train
from idml_hf.training.tune import defaults, tune

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    labels = np.repeat(np.arange(24), 6)
    x = random.normal(size=(24, 12))[labels] + random.normal(size=(144, 12)) * np.r_[np.full(6, 0.3), np.full(6, 2.0)]
    np.save(folder / "x.npy", x.astype(np.float32))
    np.save(folder / "y.npy", labels)
    return folder


def run_on(vectors, output, **settings):
    files = {"features": str(vectors / "x.npy"), "labels": str(vectors / "y.npy")}
    return Run(output=str(output), **files, **({"epochs": 1, "batch_size": 24} | settings))


def rows(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_best_trial_is_a_recipe_that_train_takes(vectors, tmp_path):
    output = tmp_path / "tuned"
    found = tune(run_on(vectors, output), ["proxy_nca", "contrastive"], trials=4, progress=False)
    table = rows(output)
    values = [float(row["map_at_r"]) for row in table]
    assert len(table) == found.trials == 4 and max(values) == pytest.approx(found.value)
    # each loss is tried with its own values first
    assert {row["loss"] for row in table[:2]} == {"proxy_nca", "contrastive"}
    first = next(row for row in table if row["loss"] == "proxy_nca")
    assert float(first["proxy_nca.scale"]) == LOSSES["proxy_nca"].hyper_parameters()["scale"]
    recipe = load_recipe(output / "best.yaml")
    assert recipe == found.recipe and recipe["head"] == "trained"
    metrics = train(run_on(vectors, tmp_path / "m", **{k: v for k, v in recipe.items() if k != "epochs"}))
    assert metrics["loss"] == recipe["loss"]
    assert (output / "tune.png").stat().st_size > 5000


def test_it_goes_on_and_is_deterministic(vectors, tmp_path):
    whole = tune(run_on(vectors, tmp_path / "a"), ["contrastive"], trials=2, progress=False)
    tune(run_on(vectors, tmp_path / "b"), ["contrastive"], trials=1, progress=False)
    again = tune(run_on(vectors, tmp_path / "b"), ["contrastive"], trials=1, progress=False)
    assert again.trials == 1
    assert tune(run_on(vectors, tmp_path / "b"), ["contrastive"], trials=2, progress=False).trials == 2
    assert rows(tmp_path / "a")[0]["map_at_r"] == rows(tmp_path / "b")[0]["map_at_r"]
    twin = tune(run_on(vectors, tmp_path / "c"), ["contrastive"], trials=2, progress=False)
    assert (twin.value, twin.recipe) == (whole.value, whole.recipe)
    with pytest.raises(ValueError, match="a search with other epochs"):
        tune(run_on(vectors, tmp_path / "a", epochs=2), ["contrastive"], trials=2, progress=False)
    with pytest.raises(ValueError, match="Did you mean 'contrastive'"):
        tune(run_on(vectors, tmp_path / "d"), ["contrastiv"], trials=1, progress=False)


def test_every_loss_has_something_to_search_for():
    for name in LOSSES:
        found = defaults(name, 1e-3)
        assert len(found) > 1 and all(value > 0 for value in found.values())
        assert not any("memory" in key for key in found)


def test_the_command(vectors, tmp_path):
    arguments = ["--features", vectors / "x.npy", "--labels", vectors / "y.npy", "--epochs", 1, "--trials", 1]
    command = ["tune", *arguments, "--loss", "triplet_semihard", "--output", tmp_path / "t"]
    result = CliRunner().invoke(app, [str(a) for a in command], catch_exceptions=False)
    assert "triplet_semihard: MAP@R" in result.output and "in closed form" in result.output
    assert json.loads((tmp_path / "t" / "study.json").read_text())["epochs"] == 1
