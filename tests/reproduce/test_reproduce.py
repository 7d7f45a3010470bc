"""Making a table: planned, made, interrupted, gone on with, reported."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from idml_hf.data import ClassificationData, ImageSet
from idml_hf.reproduce import command, estimate
from idml_hf.reproduce.command import reproduce
from idml_hf.reproduce.plan import plan, planned_settings
from idml_hf.reproduce.results import read_results
from idml_hf.reproduce.tables import TABLES, Column, Row, Table
from idml_hf.training import run as training
from idml_hf.training import tasks

RECIPES = Path(__file__).parents[2] / "training_scripts" / "recipes"


@pytest.fixture
def recipes(tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "base.yaml").write_text(
        "dataset: dots\nbackbone: resnet8_small\npretrained: false\nimage_size: 28\naugmentation: none\nepochs: 2\n"
        "batch_size: 6\nlearning_rate: 0.05\nsave_steps: 2\ntrainer: {use_cpu: true, optim: sgd}\n"
    )
    return folder


@pytest.fixture
def table(monkeypatch):
    rows = (Row("Plain", ("base.yaml",)), Row("Ours", ("base.yaml",), {}, against="Plain"))
    made = Table("dots", "Dots", "classification", rows, (Column("Top-1", "top1"), Column("AURC", "aurc")), seeds=2)
    monkeypatch.setitem(TABLES, "dots", made)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 28, 28), dtype=np.uint8)
    images = ImageSet.from_arrays(pixels, np.arange(24) % 3, ["a", "b", "c"], "dots")
    data = ClassificationData("dots", images, None, images)
    monkeypatch.setattr(tasks, "load_classification_data", lambda *args, **kwargs: data)
    return made


@pytest.fixture
def call(recipes, tmp_path):
    def run(**options):
        console = Console(width=160, record=True, file=io.StringIO())
        folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
        results = reproduce("dots", recipes, console=console, **(folders | options))
        return results, console.export_text()

    return run


def test_runs_are_planned_seed_by_seed(table, recipes, tmp_path):
    runs = plan(table, [0, 1], recipes, tmp_path / "results", tmp_path / "runs", local={"root": "/data/dots"})
    assert [(run.row, run.run.seed) for run in runs] == [("Plain", 0), ("Ours", 0), ("Plain", 1), ("Ours", 1)]
    assert runs[1].run.output == str(tmp_path / "runs" / "dots" / "ours-seed0") and not runs[1].done
    assert runs[0].run.method == "plain" and runs[0].run.root == "/data/dots"
    assert runs[1].run.method == "released"
    with pytest.raises(ValueError, match="Did you mean 'Ours'"):
        plan(table, [0], recipes, tmp_path, tmp_path, rows=["ours"])


def test_settings_that_are_kept_hold_no_path(table, recipes, tmp_path):
    local = {"root": "/data/dots", "weights": "/models/trunk.safetensors", "workers": 3}
    (run,) = plan(table, [0], recipes, tmp_path, tmp_path, rows=["Ours"], local=local)
    settings = planned_settings(run)
    assert settings["weights"] == "trunk.safetensors" and settings["dataset"] == "dots"
    assert str(tmp_path) not in json.dumps(settings) and "/data" not in json.dumps(settings)
    assert not {"root", "output", "workers"} & set(settings)


def test_a_table_is_made_and_what_is_there_is_not_made_again(table, call, tmp_path, monkeypatch):
    results, text = call(seeds=1)
    assert [(result.row, result.seed) for result in results] == [("Plain", 0), ("Ours", 0)]
    assert "Ours - Plain" in text and (tmp_path / "results" / "dots.csv").read_text().count("\n") == 3
    result = next(r for r in read_results(tmp_path / "results", "dots") if r.row == "Ours")
    assert result.metrics["form"] == "released_classification" and result.settings["epochs"] == 2
    assert "torch" in result.environment and str(tmp_path) not in json.dumps(result.__dict__)
    # the report needs no run, and a second call makes only what is missing
    made = []
    execute = command.execute_all
    monkeypatch.setattr(command, "execute_all", lambda runs, results, jobs: made.extend(r for r in runs if not r.done))
    call(report=True)
    assert not made
    call()
    assert [(run.row, run.run.seed) for run in made] == [("Plain", 1), ("Ours", 1)]
    monkeypatch.setattr(command, "execute_all", execute)
    assert "2 of 4 runs to make" in call(dry_run=True)[1]


def test_one_row_alone(table, call):
    results, _ = call(seeds=1, rows=("Ours",))
    assert [result.row for result in results] == ["Ours"]


def test_an_interrupted_run_is_gone_on_with(table, call, tmp_path, monkeypatch):
    train, seen = training.train, []

    def stop_after_first_checkpoint(run, progress):
        seen.append((run.seed, run.resume, run.overwrite))
        build = training.build_trainer

        def build_and_stop(*args):
            trainer = build(*args)
            trainer.args.max_steps = 5
            original = trainer.training_step

            def step(*a, **k):
                if trainer.state.global_step == 3:
                    raise KeyboardInterrupt
                return original(*a, **k)

            trainer.training_step = step
            return trainer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "build_trainer", build_and_stop)
            return train(run, progress)

    monkeypatch.setattr(training, "train", stop_after_first_checkpoint)
    with pytest.raises(KeyboardInterrupt):
        call(seeds=1, rows=("Plain",))
    assert not read_results(tmp_path / "results", "dots")

    def note(run, progress):
        seen.append((run.seed, run.resume, run.overwrite))
        return train(run, progress)

    monkeypatch.setattr(training, "train", note)
    results, _ = call(seeds=1, rows=("Plain",))
    assert seen == [(0, False, True), (0, True, False)] and len(results) == 1


def test_other_settings_are_not_mixed_into_a_table(table, call, recipes):
    call(seeds=1)
    text = (recipes / "base.yaml").read_text()
    (recipes / "base.yaml").write_text(text.replace("epochs: 2", "epochs: 3"))
    with pytest.raises(
        ValueError, match=r"dots\.jsonl: Plain \(plain\), seed 0 was made with other settings \(epochs was 2, is 3\)"
    ):
        call(seeds=1)
    assert "epochs was 2, is 3" in call(seeds=1, report=True)[1]


def test_methods_are_compared_with_the_same_plain_runs(table, call, tmp_path):
    call(seeds=1)
    results, _ = call(seeds=1, method="published")
    assert [(r.row, r.method) for r in results] == [("Plain", "plain"), ("Ours", "published")]
    assert results[1].metrics["form"] == "ratio"
    kept = read_results(tmp_path / "results", "dots")
    assert sorted(r.method for r in kept) == ["plain", "published", "released"]
    # the file of all results holds them all, whatever was asked for last
    lines = (tmp_path / "results" / "dots.csv").read_text().splitlines()
    assert len(lines) == 4 and [line.split(",")[1] for line in lines[1:]] == [r.method for r in kept]
    with pytest.raises(ValueError, match="Did you mean 'published'"):
        call(method="publishd")


def test_the_authors_method_has_one_loss(tmp_path):
    runs = plan(TABLES["emoji"], [0], RECIPES, tmp_path, tmp_path, method="released")
    assert [run.row for run in runs if run.run.method == "released"] == ["IDML-PA"]
    assert sum(run.run.method == "plain" for run in runs) == 7


def test_a_table_of_a_folder_needs_the_folder(tmp_path):
    with pytest.raises(ValueError, match="table icons needs --root, the folder of its pictures"):
        reproduce("icons", RECIPES, dry_run=True, results=tmp_path, runs=tmp_path)
    (run, *_) = plan(TABLES["icons"], [0], RECIPES, tmp_path, tmp_path, local={"dataset": str(tmp_path)})
    assert run.run.group_column == "family" and planned_settings(run)["dataset"] == tmp_path.name


def test_an_empty_report_says_so(table, call):
    assert "There are no results of table dots yet" in call(report=True)[1]


@pytest.mark.slow
def test_several_jobs(tmp_path, recipes, monkeypatch):
    """Worker processes import everything anew, so the data set is one they find by themselves."""
    from PIL import Image

    for split, number in (("train", 4), ("test", 2)):
        for name, grey in (("dark", 20), ("light", 220)):
            (tmp_path / "grey" / split / name).mkdir(parents=True)
            for i in range(number):
                Image.new("L", (28, 28), grey + i).save(tmp_path / "grey" / split / name / f"{i}.png")
    settings = {"dataset": str(tmp_path / "grey"), "batch_size": 4, "epochs": 1}
    rows = (Row("Plain", ("base.yaml",), settings), Row("Ours", ("base.yaml",), settings, against="Plain"))
    made = Table("grey", "Grey", "classification", rows, (Column("Top-1", "top1"),), seeds=1)
    monkeypatch.setitem(TABLES, "grey", made)
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    results = reproduce("grey", recipes, jobs=2, **folders)
    assert sorted(result.row for result in results) == ["Ours", "Plain"]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_planned_dry(name, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "timed_rate", lambda run: 100.0)
    console = Console(width=200, record=True, file=io.StringIO())
    reproduce(name, RECIPES, root=tmp_path, dry_run=True, results=tmp_path, runs=tmp_path, console=console)
    runs = len(TABLES[name].rows) * TABLES[name].seeds
    # how many pictures a folder holds is not known before it is read
    about = "" if TABLES[name].folder else ", about"
    assert f"{runs} of {runs} runs to make{about}" in console.export_text()


def test_time_is_estimated_from_images_and_rate(tmp_path, monkeypatch):
    """Fashion-MNIST: 60,000 images an epoch."""
    monkeypatch.setattr(estimate, "timed_rate", lambda run: 1000.0)
    console = Console(width=200, record=True, file=io.StringIO())
    options = {"dry_run": True, "results": tmp_path, "runs": tmp_path, "console": console}
    reproduce("fashion-mnist", RECIPES, seeds=1, rows=("Baseline",), **options)
    (run,) = plan(TABLES["fashion-mnist"], [0], RECIPES, tmp_path, tmp_path, ["Baseline"])
    assert estimate.images_seen(run.run) == 60_000 * run.run.epochs
    assert f"about {run.run.epochs} min" in console.export_text()


def test_the_rate_is_timed_where_there_is_no_result():
    (run,) = plan(TABLES["fashion-mnist"], [0], RECIPES, Path(), Path(), ["IDML-Cutmix"])
    assert estimate.timed_rate(run.run, steps=1) > 1
