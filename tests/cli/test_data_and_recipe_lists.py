"""What is there to choose from: the version, data sets, recipes."""

from __future__ import annotations

import json
from importlib.metadata import version

import yaml
from small import run

from idml_hf.data.registry import DATASETS
from idml_hf.training.recipes import load_recipe, packaged_recipes


def test_the_version(capsys):
    assert not run("--version")
    assert capsys.readouterr().out == f"idml-hf {version('idml-hf')}\n"


def test_each_data_set_is_listed_with_size_source_and_terms(capsys):
    assert not run("data", "list")
    text = capsys.readouterr().out
    for name, spec in DATASETS.items():
        (block,) = [part for part in text.split("\n\n") if part.startswith(f"{name}: ")]
        assert all(f"{images:,} images" in block for images, _ in spec.expected.values())
        assert spec.embedded or "--root" in block
    assert not run("data", "list", "--json")
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(DATASETS)


def test_recipes_are_listed_and_shown_whole(capsys):
    assert not run("recipes", "list")
    assert capsys.readouterr().out.split() == packaged_recipes()
    for name in ("icons", "paper/cub"):
        assert not run("recipes", "show", name)
        assert yaml.safe_load(capsys.readouterr().out) == load_recipe(name)
    assert run("recipes", "show", "paper/cup")
    assert "Did you mean 'paper/cub'" in capsys.readouterr().err
