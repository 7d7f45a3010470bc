"""Killed at every file operation, and at random times: nothing is lost, nothing is wedged."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_injection import in_child, kill_child

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.data import load_images
from idml_hf.embedding_shards import embed_to_shards, read_shards
from idml_hf.hub import push_folder
from idml_hf.training.run import train
from idml_hf.training.settings import Run

RANDOM = random.Random(0)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def index_of(number: int) -> IDMLIndex:
    rows = np.random.default_rng(number).normal(size=(40, 16)).astype(np.float32)
    return IDMLIndex.from_embeddings(rows, labels=np.arange(40) % 4)


def test_index(tmp_path):
    """The old index or the new one, whole; and the next save works and leaves no remains."""
    old, new = index_of(1), index_of(2)
    place = tmp_path / "index"
    old.save(place)
    operations = in_child(lambda: new.save(place), place).operations
    assert operations > 5
    kills = 0
    for at in range(operations):
        shutil.rmtree(place)
        old.save(place)
        assert in_child(lambda: new.save(place), place, kill_at=at).status == "killed"
        kills += 1
        found = IDMLIndex.load(place).gallery.semantic
        assert any(np.array_equal(found, index.gallery.semantic) for index in (old, new)), f"lost at {at}"
        index_of(3).save(place)
        assert np.array_equal(IDMLIndex.load(place).gallery.semantic, index_of(3).gallery.semantic)
        assert len([path for path in place.iterdir() if path.name != ".lock"]) == 2, "remains"
    print(f"\nindex: {kills} kills at {operations} operations, 0 lost, 0 wedged")


def test_shards(model_folder, photos, tmp_path):
    """What a killed run has embedded is kept, and the next one makes the same as one that nobody stopped."""
    images = load_images(str(photos), "all")

    def embed(folder):
        embed_to_shards(model_folder, images, folder, shard_size=4, progress=False)

    whole = tmp_path / "whole"
    operations = in_child(lambda: embed(whole), whole).operations
    expected = read_shards(whole).embeddings.semantic
    for at in range(operations):
        folder = tmp_path / f"{at}"
        assert in_child(lambda folder=folder: embed(folder), folder, kill_at=at).status == "killed"
        assert in_child(lambda folder=folder: embed(folder), folder).status == "done"
        assert np.array_equal(read_shards(folder).embeddings.semantic, expected), f"other embeddings after {at}"
        shutil.rmtree(folder)
    print(f"\nshards: {operations} kills, 0 lost, 0 wedged")


def test_push(model_folder, hub, tmp_path):
    """Killed at each request: the repository holds the old model or the new one, and the next push ends."""
    push_folder(model_folder, "tester/model")
    old = hub.files("tester/model")
    changed = tmp_path / "changed"
    model = IDMLModel.from_pretrained(model_folder)
    torch.nn.init.ones_(model.semantic_head.bias)
    model.save_pretrained(changed)
    shutil.copy(model_folder / "preprocessor_config.json", changed)
    start = hub.repositories["model", "tester/model"]
    commits, refs = dict(start.commits), dict(start.refs)

    def again():
        start.commits, start.refs = dict(commits), dict(refs)
        hub.large.clear()
        hub.log.clear()
        shutil.rmtree(tmp_path / "home", ignore_errors=True)

    again()
    assert in_child(lambda: push_folder(changed, "tester/model"), tmp_path).status == "done"
    new, requests = hub.files("tester/model"), len(hub.log)
    assert old != new and requests > 5
    for at in range(requests):
        again()
        seen = itertools.count()
        reached = threading.Event()

        def kill(method, path, at=at, seen=seen, reached=reached):
            if next(seen) == at and not reached.is_set():
                reached.set()
                kill_child()

        hub.before = kill
        ended = in_child(lambda: push_folder(changed, "tester/model"), tmp_path)
        assert ended.status == "killed", (at, requests, ended, hub.log)
        hub.before = lambda method, path: None
        assert hub.files("tester/model") in (old, new), f"half a push at request {at}"
        assert in_child(lambda: push_folder(changed, "tester/model"), tmp_path).status == "done"
        assert hub.files("tester/model") == new
    print(f"\npush: {requests} kills, 0 lost, 0 wedged")


def settings(photos: Path, output: Path, **more: object) -> Run:
    return Run(
        output=str(output),
        dataset=str(photos),
        backbone="test_resnet",
        pretrained=False,
        embedding_dim=8,
        image_size=32,
        epochs=2,
        batch_size=6,
        save_steps=1,
        trainer={"use_cpu": True},
        **more,
    )


@pytest.fixture(scope="module")
def unbroken(photos, tmp_path_factory):
    """What a run makes that nobody stops, and how many file operations and seconds it takes."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    ended = in_child(lambda: train(settings(photos, folder), progress=False), folder)
    assert ended.status == "done", ended.trace
    return folder, ended


def same_run(found: Path, expected: Path) -> None:
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), f"another {name}"
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (found, expected)]
    for entry in metrics:
        del entry["seconds"], entry["train_images_per_second"]
    assert metrics[0] == metrics[1]
    assert (found / "README.md").is_file() and json.loads((found / "run.json").read_text())["log"]
    left = {path.name for path in found.iterdir()} - {path.name for path in expected.iterdir()}
    assert not left, f"remains: {left}"


KILLS = int(os.environ.get("IDML_HF_TRAINING_KILLS", "60"))


def test_training(photos, unbroken, tmp_path):
    """Killed in any phase once, or twice, a run goes on to bit-identical weights and equal metrics."""
    expected, ended = unbroken
    every = range(ended.operations)
    chosen = list(every) if len(every) <= KILLS else sorted(RANDOM.sample(every, KILLS))
    kills = 0
    for at in chosen:
        folder = tmp_path / f"at-{at}"
        status = in_child(
            lambda folder=folder: train(settings(photos, folder), progress=False), folder, kill_at=at
        ).status
        assert status == "killed", f"operation {at}: {status}"
        kills += 1
        if RANDOM.random() < 0.3:
            resume = lambda folder=folder: train(settings(photos, folder, resume=True), progress=False)  # noqa: E731
            kills += in_child(resume, folder, kill_at=RANDOM.randrange(ended.operations)).status == "killed"
        resume = lambda folder=folder: train(settings(photos, folder, resume=True), progress=False)  # noqa: E731
        after = in_child(resume, folder)
        assert after.status == "done", f"wedged after a kill at {at}: {after.trace}"
        same_run(folder, expected)
        shutil.rmtree(folder)
    print(f"\ntraining: {kills} kills at {len(chosen)} of {ended.operations} operations, all resumed bit-identical")


def test_training_at_random_times(photos, unbroken, tmp_path):
    """As above, but wherever the time falls: in native code, or in the middle of a file."""
    expected, ended = unbroken
    kills = 0
    for number in range(12):
        folder = tmp_path / f"{number}"
        after = ended.seconds * RANDOM.random()
        first = in_child(
            lambda folder=folder: train(settings(photos, folder), progress=False), folder, kill_after=after
        )
        if first.status == "killed":
            kills += 1
        again = in_child(lambda folder=folder: train(settings(photos, folder, resume=True), progress=False), folder)
        assert again.status == "done", f"wedged after {after:.2f} s: {again.trace}"
        same_run(folder, expected)
        shutil.rmtree(folder)
    assert kills >= 3
    print(f"\ntraining: {kills} kills at random times, all resumed bit-identical")


def test_results_of_an_earlier_run_stay_until_the_new_ones_are_whole(photos, unbroken, tmp_path):
    """A folder with metrics holds the model that they are of, whenever a run that replaces it is killed."""
    expected, ended = unbroken
    chosen = sorted(RANDOM.sample(range(ended.operations), min(25, ended.operations)))
    for at in chosen:
        folder = tmp_path / f"{at}"
        shutil.copytree(expected, folder)
        old = content(folder)
        run = settings(photos, folder, overwrite=True, seed=1)
        assert in_child(lambda run=run: train(run, progress=False), folder, kill_at=at).status in ("killed", "done")
        if (folder / "metrics.json").is_file() and (folder / "metrics.json").read_bytes() == old["metrics.json"]:
            assert (folder / "model.safetensors").read_bytes() == old["model.safetensors"], f"mixed at {at}"
        IDMLModel.from_pretrained(folder)
        shutil.rmtree(folder)
    print(f"\nresults: {len(chosen)} kills, 0 mixed")
