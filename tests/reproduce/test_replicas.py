"""The paper's retrieval tables on replicas of their data, by the command that makes the real ones."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from data.dataset_replicas import WRITERS, expect
from rich.console import Console

from idml_hf.reproduce.command import reproduce
from idml_hf.reproduce.tables import TABLES

RECIPES = Path(__file__).parents[2] / "training_scripts" / "recipes"
TINY = {
    "backbone": "test_resnet",
    "pretrained": False,
    "image_size": 32,
    "embedding_dim": 16,
    "epochs": 1,
    "batch_size": 12,
    "trainer": {"max_steps": 2, "use_cpu": True, "images_per_class": 2, "frozen_trunk_epochs": 0},
}


def reproduce_tiny(name, tiny, wanted, tmp_path, monkeypatch, root=None):
    """The table's own command, for some of its rows with other settings; leaves `results` and `runs`."""
    rows = tuple(replace(row, settings={**row.settings, **tiny}) for row in TABLES[name].rows)
    monkeypatch.setitem(TABLES, name, replace(TABLES[name], rows=rows))
    console = Console(width=200, record=True, file=io.StringIO())
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    return reproduce(name, RECIPES, root=root, seeds=1, rows=wanted, workers=0, console=console, **folders)


@pytest.mark.parametrize("name", ["cub", "cars", "sop"])
def test_two_steps_of_a_pair_loss_and_a_proxy_loss(name, tmp_path, monkeypatch):
    expect(monkeypatch, name, first_test_class=None)
    (tmp_path / "data").mkdir()
    root = WRITERS[name](tmp_path / "data")
    wanted = ("Contrastive", "IDML-PA")
    results = reproduce_tiny(name, TINY, wanted, tmp_path, monkeypatch, root)
    assert [result.row for result in results] == list(wanted)
    for result in results:
        assert all(result.metrics.get(column.key) is not None for column in TABLES[name].columns)
    rows = list(csv.DictReader((tmp_path / "results" / f"{name}.csv").read_text().splitlines()))
    assert [row["loss"] for row in rows] == ["contrastive", "proxy_anchor"]
    assert [row["form"] for row in rows] == ["none", "ratio"]
    assert {"seed", "recall_at_1", "map_at_r", "r_precision", "nmi", "r_auroc", "auroc_max_similarity"} <= set(rows[0])
    assert (tmp_path / "runs" / name / "idml-pa-seed0" / "model.safetensors").exists()
