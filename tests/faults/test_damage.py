"""Flipped bits are said when an index is loaded, and readers never meet a half-written one."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from fault_injection import in_child

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.index_files import IndexFileError

FLIPS = 200
LOADS = int(os.environ.get("IDML_HF_LOADS", "20000"))


def index_of(number: int, rows: int = 60) -> IDMLIndex:
    vectors = np.random.default_rng(number).normal(size=(rows, 16)).astype(np.float32)
    return IDMLIndex.from_embeddings(vectors, labels=np.arange(rows) % 5)


def test_flipped_bits_in_an_index(tmp_path):
    index_of(0).save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    # each file as often as any other, whatever its size
    chances = random.Random(0)
    silent = []
    for number in range(FLIPS):
        path = files[number % len(files)]
        before = path.read_bytes()
        at = chances.randrange(8 * len(before))
        damaged = bytearray(before)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            IDMLIndex.load(tmp_path)
            silent.append((path.name, at))
        except IndexFileError as error:
            assert "\n" not in str(error)
        finally:
            path.write_bytes(before)
    IDMLIndex.load(tmp_path)
    assert not silent, f"{len(silent)} of {FLIPS} flipped bits went unseen: {silent[:5]}"
    print(f"\nindex: {FLIPS} flipped bits, 0 silent")


def test_what_is_cut_off_of_a_model_is_said(model_folder, tmp_path):
    """Weights have a length, but no checksum: safetensors tells what is missing or too much, not what is changed."""
    for path in model_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:-1], whole + b"\0", whole[: len(whole) // 2], b""):
        weights.write_bytes(content)
        with pytest.raises((ValueError, OSError)) as caught:
            IDMLModel.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)


def test_loads_beside_a_saving_writer(tmp_path):
    """Each load gives one of the indexes that were saved, whole."""
    indexes = [index_of(number) for number in range(3)]
    place = tmp_path / "index"
    indexes[0].save(place)
    saves = tmp_path / "saves"

    writer = os.fork()
    if writer == 0:
        try:
            for number in itertools.count(1):
                index_of(number % 3).save(place)  # one that was not loaded from there may replace what is
                saves.write_text(str(number))
        finally:
            os._exit(1)
    failed, started = [], time.monotonic()
    try:
        for number in range(LOADS):
            try:
                found = IDMLIndex.load(place).gallery.semantic
            except Exception as error:
                failed.append(f"{number}: {type(error).__name__}: {error}")
                continue
            if not any(np.array_equal(found, index.gallery.semantic) for index in indexes):
                failed.append(f"{number}: a mixture")
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    written = int(saves.read_text() or 0)
    assert not failed, f"{len(failed)} of {LOADS}: {failed[:5]}"
    assert written > LOADS / 200, "the writer hardly wrote"
    seconds = time.monotonic() - started
    print(f"\nloads: {LOADS} beside {written} saves in {seconds:.0f} s, 0 failed")


def test_two_writers(tmp_path):
    """Of two that save at once, each is whole or refused in one line."""
    place = tmp_path / "index"
    index_of(0).save(place)

    def save_often() -> None:
        done = refused = 0
        for number in range(40):
            try:
                index_of(os.getpid() + number).save(place)
                done += 1
            except RuntimeError as error:
                assert "another process is writing" in str(error), error
                refused += 1
        Path(tmp_path / f"{os.getpid()}.json").write_text(json.dumps([done, refused]))

    other = os.fork()
    if other == 0:
        try:
            save_often()
        finally:
            os._exit(0)
    ended = in_child(save_often, tmp_path / "none")
    os.waitpid(other, 0)
    assert ended.status == "done", ended.trace
    counts = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(counts) == 2 and all(done + refused == 40 for done, refused in counts)
    assert len(IDMLIndex.load(place)) == 60
    assert len([path for path in place.iterdir() if path.name.startswith("data-")]) == 1
