"""Stored features: written in shards, gone on with, and as good as the pictures that they were read from."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from idml_hf import IDMLModel
from idml_hf.cli.main import app
from idml_hf.embedding import embed_dataset
from idml_hf.training import Run, train
from idml_hf.training.feature_store import FeatureStore, is_store
from idml_hf.training.features_run import make_features
from idml_hf.training.frozen_trunk import on_vectors

BACKBONE = {"backbone": "test_resnet", "pretrained": False, "image_size": 32}
HEADS = {"embedding_dim": 8, "epochs": 1}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve classes of five pictures: noise around a colour, in class folders."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in range(12):
        colour = random.integers(40, 216, 3)
        (folder / f"class{label:02}").mkdir()
        for number in range(5):
            pixels = (colour + random.integers(-40, 40, (36, 32, 3))).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"class{label:02}" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def store(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "features"
    run = Run(output=str(folder), dataset=str(photos), frozen_trunk=True, **BACKBONE)
    return make_features(run, shard_size=10, batch_size=8, progress=False)


def test_the_store_keeps_what_training_and_test_images_are(store):
    assert {split: len(images) for split, images in store.splits.items()} == {"train": 30, "test": 30}
    train_images = store.splits["train"]
    assert train_images.class_names == tuple(f"class{label:02}" for label in range(6))
    assert train_images.vectors[:].dtype == np.float16
    assert train_images.ids[0].as_py().endswith("class00/0.png")
    # 16 images a shard, two whole batches
    assert sorted(p.name for p in store.folder.glob("test-*.npy")) == [
        "test-00000-of-00002.npy",
        "test-00001-of-00002.npy",
    ]
    assert len(store.degraded[0]) == len(store.degraded[1]) == 2 + 2 + 2 + 2


@pytest.mark.parametrize("head", ["closed_form", "trained"])
def test_heads_are_those_of_a_run_that_reads_the_images_itself(photos, store, tmp_path, head, monkeypatch):
    monkeypatch.setattr("idml_hf.training.run.READ_BATCH", 8)  # as of the store
    settings = HEADS | {"head": head, "batch_size": 8, "seed": 0}
    itself = train(
        Run(output=str(tmp_path / "a"), dataset=str(photos), frozen_trunk=True, **(BACKBONE | settings)),
        progress=False,
    )
    stored = train(Run(output=str(tmp_path / "b"), features=str(store.folder), **settings), progress=False)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert stored["recall_at_1"] == pytest.approx(itself["recall_at_1"], abs=0.05)
    assert (itself["trunk_weights"], stored["trunk_weights"]) == ("random", "random")
    record = json.loads((tmp_path / "b" / "run.json").read_text())["run"]
    assert record["backbone"] == "test_resnet" and record["frozen_trunk"]


def test_heads_say_of_stored_features_what_the_model_says_of_pictures(photos, store, tmp_path):
    train(Run(output=str(tmp_path / "m"), features=str(store.folder), **HEADS), progress=False)
    model = IDMLModel.from_pretrained(tmp_path / "m")
    test_images = store.splits["test"]
    from_pictures = model.encode(test_images.ids.to_pylist())
    twin = on_vectors(model, test_images.width).eval()
    from_features = embed_dataset(twin, None, test_images, progress=False)
    assert np.abs(from_pictures.semantic - from_features.semantic).max() < 0.02
    assert np.allclose(from_pictures.uncertainty, from_features.uncertainty, rtol=0.02)


def test_an_interrupted_store_goes_on_with_what_is_missing(photos, store):
    files = sorted(store.folder.glob("*.npy"))
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    lost = [file for file in files if file.name.startswith("train-00001")]
    assert len(lost) == 3
    for file in lost[:2]:
        file.unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 files, as train-00001-of-00002"):
        FeatureStore.open(store.folder)
    # without the last file of a shard, the shard is made again
    (store.folder / "train-00001-of-00002.npy").unlink(missing_ok=True)
    make_features(
        Run(output=str(store.folder), dataset=str(photos), frozen_trunk=True, **BACKBONE),
        shard_size=10,
        batch_size=8,
        progress=False,
    )
    for file, (content, time) in before.items():
        assert file.read_bytes() == content
        assert (file.stat().st_mtime_ns == time) == (file not in lost)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "features of another backbone"),
        ({"crop_pct": 0.5}, "made with another processor"),
        ({"image_size": 48}, "made with another processor"),
    ],
)
def test_a_store_of_something_else_is_refused(photos, store, other, message):
    run = Run(output=str(store.folder), dataset=str(photos), frozen_trunk=True, **(BACKBONE | other))
    with pytest.raises(ValueError, match=message):
        make_features(run, shard_size=10, batch_size=8, progress=False)


def test_a_run_on_a_store_has_the_backbone_of_the_store(store, tmp_path):
    for wrong, message in (
        ({"backbone": "resnet18"}, "backbone is 'test_resnet' in"),
        ({"dataset": "emoji-mini"}, "leave out dataset"),
        ({"labels": "y.npy"}, "leave out --labels"),
        ({"mixup": True}, "mixup mixes images"),
    ):
        with pytest.raises(ValueError, match=message):
            train(Run(output=str(tmp_path / "m"), features=str(store.folder), **(HEADS | wrong)), progress=False)
    assert not is_store(tmp_path)
    with pytest.raises(ValueError, match="pool 'statistics' alone, not 'avg'"):
        on_vectors(IDMLModel.from_backbone("test_resnet", pretrained=False, pool="avg"), 4)


def test_the_commands(photos, tmp_path):
    made = ["features", "--backbone", "test_resnet", "--no-pretrained", "--image-size", "32", "--dataset", str(photos)]
    result = CliRunner().invoke(app, [*made, "--output", str(tmp_path / "f")], catch_exceptions=False)
    assert "30 train images, 30 test images, 1104 values each" in result.output
    fitted = ["train", "--features", str(tmp_path / "f"), "--embedding-dim", "8", "--epochs", "1"]
    result = CliRunner().invoke(app, [*fitted, "--output", str(tmp_path / "m")], catch_exceptions=False)
    assert result.exit_code == 0 and (tmp_path / "m" / "preprocessor_config.json").is_file()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        CliRunner().invoke(app, [*made, "--output", str(tmp_path)], catch_exceptions=False)
