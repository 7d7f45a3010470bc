"""Every data set of the paper, downloaded over HTTP in the schema of its Hub copy, trains by its table's command."""

from __future__ import annotations

import datasets
import pytest
from data.dataset_replicas import expect, write_hub
from hub_standin import Repository, running_hub
from reproduce.test_replicas import RECIPES, TINY, reproduce_tiny
from training.test_classification_runs import TINY as TINY_CLASSIFIERS

from idml_hf.data import DATASETS
from idml_hf.reproduce.plan import settings_of
from idml_hf.reproduce.tables import TABLES


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve the replica of a data set under its Hub id and pinned revision; gives the log of requests."""
    with running_hub() as hub:
        hub.here(monkeypatch, tmp_path / "home")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
        monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "home" / "modules"))

        def serve(name):
            spec = DATASETS[name]
            folder = write_hub(tmp_path / "replica", name)
            tree = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet")}
            repository = hub.repositories["dataset", spec.hub_id] = Repository()
            if spec.revision is None:
                repository.add(tree)
            else:
                # what is newest must not be what is read
                repository.commits[spec.revision] = tree
                repository.add({"README.md": b"nothing is left"})
            return hub.log

        yield serve


@pytest.mark.parametrize("name", ["cub", "cars", "sop", "imagenet", "cifar10", "cifar100", "fashion-mnist"])
def test_two_steps_from_the_hub(name, served, tmp_path, monkeypatch):
    table = TABLES[name]
    expect(monkeypatch, name, first_test_class=None, system_folder=None)
    log = served(name)
    tiny = TINY
    if table.task == "classification":
        backbone = settings_of(table, table.rows[-1], RECIPES)["backbone"]
        trainer = {"max_steps": 2, "use_cpu": True}
        tiny = {"pretrained": False, "epochs": 1, "batch_size": 4, "trainer": trainer} | TINY_CLASSIFIERS[backbone]
    (result,) = reproduce_tiny(name, tiny, (table.rows[-1].name,), tmp_path, monkeypatch)
    assert 0 <= result.metrics[table.columns[0].key] <= 1
    if table.task == "retrieval":
        assert result.metrics["num_queries"] == DATASETS[name].expected["test"][0]
    assert any(".parquet" in line for line in log), "the images came over HTTP"
    assert list((tmp_path / "runs").rglob("model.safetensors"))
