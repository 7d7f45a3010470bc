"""A disk that is full, from any write on: the old results are intact, and one line says why."""

from __future__ import annotations

import csv
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from fault_injection import Ended, in_child

from idml_hf import IDMLIndex
from idml_hf.cli import main

RANDOM = random.Random(0)
POINTS = 8


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_locks(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if not path.endswith(".lock")}


def command(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


TRAIN = ["--backbone", "test_resnet", "--no-pretrained", "--embedding-dim", 8, "--image-size", 32]
TRAIN += ["--epochs", 1, "--batch-size", 6]


@pytest.fixture
def commands(model_folder, photos):
    """Six commands that write, by name: what each is given, but its folder."""
    return {
        "train": ["train", "--dataset", photos, *TRAIN, "--overwrite", "--output"],
        "evaluate": ["evaluate", model_folder, "--dataset", photos, "--split", "all", "--output"],
        "embed": ["embed", model_folder, "--dataset", photos, "--split", "all", "--output"],
        "index": ["index", model_folder, "--dataset", photos, "--split", "all", "--output"],
        "check": ["data", "check", photos, "--output"],
        "export": ["export", model_folder, "--output"],
    }


def one_line(ended: Ended) -> str:
    lines = [line for line in ended.printed.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in ended.printed, ended.printed[-2000:]
    return lines[0]


def run_once(commands, name, folder) -> tuple[list[object], Ended, dict[str, bytes]]:
    """A command's arguments, how it ended on a disk with room, and the files that it wrote."""
    arguments = [*commands[name], folder]
    first = in_child(lambda: command(*arguments), folder)
    assert first.status == "done", first.printed[-3000:]
    old = content(folder)
    assert old
    return arguments, first, old


@pytest.mark.parametrize("name", ["train", "evaluate", "embed", "index", "check", "export"])
def test_full(commands, name, tmp_path):
    folder = tmp_path / "out"
    arguments, first, old = run_once(commands, name, folder)
    kept = said = 0
    for at in sorted(RANDOM.sample(range(first.operations), min(POINTS, first.operations))):
        ended = in_child(lambda: command(*arguments), folder, full_at=at)
        if ended.status == "done":  # what cannot be written there is not needed
            continue
        assert ended.status == "error", ended
        message = one_line(ended)
        assert "space" in message.lower() or "full" in message.lower(), message
        said += 1
        found = content(folder)
        if name == "train" and "metrics.json" not in found:
            # a new model has taken the place of the old one, and says that it has not been measured
            assert "model.safetensors" in found
        else:
            assert without_locks(old).items() <= found.items(), (name, at)
            kept += 1
        shutil.rmtree(folder)
        for path, data in old.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    # tables are opened by native code: the test below makes those fail
    assert said or name == "embed", "the disk was never full"
    print(f"\n{name}: full at {said} of {first.operations} writes, one line each, {kept} times all old files intact")


@pytest.mark.parametrize("name", ["train", "evaluate", "embed", "index", "check", "export"])
def test_a_limit_that_native_code_meets(commands, name, tmp_path):
    """As above, kept by the kernel: no file may be larger than some bytes, whoever writes it."""
    folder = tmp_path / "out"
    arguments, _, old = run_once(commands, name, folder)
    largest = max(map(len, old.values()))
    for share in (0.1, 0.9):
        ended = in_child(lambda: command(*arguments), folder, largest_file=int(largest * share))
        assert ended.status == "error", ended
        one_line(ended)
        found = content(folder)
        if not (name == "train" and "metrics.json" not in found):
            assert without_locks(old).items() <= found.items(), name


def test_an_index_that_cannot_be_saved_is_still_there(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    index = IDMLIndex.from_embeddings(rows)
    place = tmp_path / "index"
    index.save(place)
    for size in (1, 1000, 20_000):
        ended = in_child(lambda: index.save(place), place, largest_file=size)
        assert ended.error.startswith("OSError: cannot save the index") and "intact" in ended.error, ended
        assert np.array_equal(IDMLIndex.load(place).gallery.semantic, index.gallery.semantic)


def test_the_csv_module_is_told_of_a_full_disk(tmp_path):
    """That the harness works: a write that fails is seen as one."""

    def write() -> None:
        with open(tmp_path / "x.csv", "w") as file:
            csv.writer(file).writerows([["x" * 100]] * 100)

    assert in_child(write, tmp_path, full_at=0).error.startswith("OSError: [Errno 28]")
    assert in_child(write, tmp_path, largest_file=100).error.startswith("OSError: [Errno 27]")
    assert in_child(write, tmp_path).status == "done"
