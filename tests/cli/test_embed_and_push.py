"""Options of `embed`, `index` and `push`: shards, engines, indexes and Spaces."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_standin import USER, running_hub

from idml_hf import IDMLImageProcessor, IDMLIndex, IDMLModel
from idml_hf.cli import main
from idml_hf.cli.searching import result_table
from idml_hf.data import load_images


@pytest.fixture(scope="module")
def beginning(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beginning")
    IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=8).save_pretrained(folder / "model")
    IDMLImageProcessor.from_backbone("test_resnet", image_size=32).save_pretrained(folder / "model")
    images = load_images("emoji-mini", "test")
    (folder / "photos").mkdir()
    for number in range(25):
        images[number].save(folder / "photos" / f"{number:02}.png")
    return folder


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.slow
def test_two_processes_share_the_files_of_a_collection(beginning, tmp_path):
    command = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu", "-m", "idml_hf", "embed"]
    options = [beginning / "model", "--dataset", beginning / "photos", "--output", tmp_path, "--shard-size", 10]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, *command, *map(str, options)]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert len(list(tmp_path.glob("embeddings-*.parquet"))) == 3
    index = IDMLIndex.from_shards(tmp_path)
    assert len(index) == 25
    assert index.search(str(beginning / "photos" / "07.png"), k=1).ids.tolist() == [[7]]


@pytest.mark.parametrize("engine", ["flat", "hnsw"])
def test_an_index_keeps_the_engine_it_was_built_with(engine, beginning, tmp_path):
    if engine != "flat":
        pytest.importorskip("faiss")
    options = ["--dataset", beginning / "photos", "--output", tmp_path / "index", "--engine", engine]
    assert not run("index", beginning / "model", *options)
    assert (IDMLIndex.load(tmp_path / "index").engine is None) == (engine == "flat")


def test_an_index_is_replaced_only_if_told_so(beginning, tmp_path, capsys):
    command = ["index", beginning / "model", "--dataset", beginning / "photos", "--output", tmp_path / "index"]
    assert not run(*command)
    before = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*.*") if path.is_file()}
    assert run(*command)
    assert "holds an index already: give --overwrite to replace it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert not run(*command, "--overwrite")
    assert not all(path.exists() for path in before)


def test_an_index_is_pushed_as_a_data_set_or_as_a_space(beginning, tmp_path, monkeypatch):
    assert not run("index", beginning / "model", "--dataset", beginning / "photos", "--output", tmp_path / "index")
    with running_hub() as hub:
        hub.here(monkeypatch, tmp_path / "home")
        assert not run("push", tmp_path / "index", f"{USER}/photos", "--private")
        assert len(IDMLIndex.load(f"{USER}/photos")) == 25
        assert not run("push", tmp_path / "index", f"{USER}/search-photos", "--space")
    assert run("push", tmp_path / "index", f"{USER}/photos", "--with-code") == 2


def test_the_table_of_matches_leaves_out_metadata_that_has_no_room():
    match = {"name": "a", "score": 1.0, "uncertainty": 0.1, "path": "a.png", "metadata": dict.fromkeys("uvwxyz", "1")}
    entry = {"query": "q.png", "uncertainty": 0.2, "abstained": None, "matches": [match]}
    plain = ["#", "class", "similarity", "uncertainty", "image"]
    for width, shown in ((80, []), (120, ["u", "v"]), (300, list("uvwxyz"))):
        assert [str(column.header) for column in result_table(entry, width).columns] == plain + shown
