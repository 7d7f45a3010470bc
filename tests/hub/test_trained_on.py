"""A model's folder knows its training classes by hash, and an index says so if they calibrate it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.data import ImageSet, load_images
from idml_hf.hub.push import model_files
from idml_hf.hub.trained_on import TRAINED_ON_FILE, TrainedOn
from idml_hf.training.run import train
from idml_hf.training.settings import Run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 training and 30 test classes, with six pictures each."""
    folder = tmp_path_factory.mktemp("data")
    for split, number in (("train", 20), ("test", 30)):
        images = load_images("emoji-mini", split=split)
        for label in range(number):
            place = folder / split / images.class_names[label]
            place.mkdir(parents=True)
            for row in np.flatnonzero(images.labels == label)[:6]:
                images[row].save(place / f"{row}.png")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run = {"backbone": "test_resnet", "pretrained": False, "image_size": 48, "embedding_dim": 16, "epochs": 1}
    train(Run(output=str(folder), overwrite=True, frozen_trunk=True, dataset=str(data), **run), progress=False)
    return folder


@pytest.fixture(scope="module")
def training_images(data: Path) -> ImageSet:
    return load_images(data, split="train")


def test_hashes_of_names_and_pictures_are_all_that_is_kept(trained: Path, training_images: ImageSet) -> None:
    text = (trained / TRAINED_ON_FILE).read_text()
    entry = json.loads(text)
    assert len(entry["classes"]) == training_images.num_classes
    assert len(entry["pictures"]) == len({training_images.file_bytes(row) for row in range(len(training_images))})
    assert all(len(part) == 16 and int(part, 16) >= 0 for kind in entry.values() for part in kind)
    assert all(entry[kind] == sorted(entry[kind]) for kind in entry)  # the order says nothing either
    assert not any(name in text for name in training_images.class_names)


def test_training_classes_that_calibrate_are_a_warning_kept_in_the_index(
    data: Path, trained: Path, training_images: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = load_images(data, split="test")
    index = IDMLIndex.build(trained, test, progress=False)
    with caplog.at_level(logging.WARNING, logger="idml_hf.index"):
        assert index.calibrate(progress=False).warnings == ()
        assert index.calibrate(test, progress=False).warnings == ()
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="idml_hf.index"):
        (warning,) = index.calibrate(training_images, progress=False).warnings
    number = training_images.num_classes
    assert f"{number} of the {number} classes" in warning and warning in caplog.text
    index.save(tmp_path / "index")
    loaded = IDMLIndex.load(tmp_path / "index").calibration
    assert loaded is not None and tuple(loaded.warnings) == (warning,) and warning in loaded.describe()
    # an index of training images, calibrated with itself, has no pictures to compare, but names
    itself = IDMLIndex.build(trained, training_images, progress=False)
    assert len(itself.calibrate(progress=False).warnings) == 1


def test_a_training_picture_is_known_under_any_name_and_a_name_under_any_picture(training_images: ImageSet) -> None:
    some = training_images.select(training_images.labels < 5)
    trained_on = TrainedOn.of(some)
    numbered = training_images.with_labels(
        training_images.labels, [str(i) for i in range(training_images.num_classes)]
    )
    assert np.flatnonzero(trained_on.known_classes(numbered)).tolist() == list(range(5))
    assert trained_on.known_names([f" {some.class_names[0].upper()} ", "something else", "7"]).tolist() == [
        True,
        False,
        False,
    ]


def test_numbers_name_no_class(training_images: ImageSet) -> None:
    names = [str(i) for i in range(training_images.num_classes)]
    assert not TrainedOn.of(training_images.with_labels(training_images.labels, names)).classes


def test_the_hashes_travel_with_the_model(trained: Path, tmp_path: Path) -> None:
    IDMLModel.from_pretrained(trained).save_pretrained(tmp_path / "copy")
    assert TrainedOn.read(tmp_path / "copy") == TrainedOn.read(trained) and TrainedOn.read(trained)
    assert TRAINED_ON_FILE in model_files(trained)
    fresh = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=8)
    fresh.save_pretrained(tmp_path / "fresh")
    assert not (tmp_path / "fresh" / TRAINED_ON_FILE).exists() and not TrainedOn.read(tmp_path / "fresh")


def test_fine_tuning_keeps_what_the_first_training_saw(data: Path, trained: Path, tmp_path: Path) -> None:
    settings = {"epochs": 1, "frozen_trunk": True, "overwrite": True, "dataset": str(data)}
    before = TrainedOn.read(trained)
    first = TrainedOn(frozenset({"0" * 16}), frozenset())
    (first | before).write(trained)
    try:
        train(Run(output=str(tmp_path / "tuned"), model=str(trained), **settings), progress=False)
    finally:
        before.write(trained)
    assert TrainedOn.read(tmp_path / "tuned") == before | first


@pytest.mark.parametrize("content", ["{}", '{"classes": 1, "pictures": []}', '{"classes": [1], "pictures": []}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / TRAINED_ON_FILE).write_text(content)
    with pytest.raises(ValueError, match=TRAINED_ON_FILE):
        TrainedOn.read(tmp_path)


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path) -> None:
    assert not TrainedOn.read(None) and not TrainedOn.read("") and not TrainedOn.read(tmp_path / "gone")


def test_a_collection_much_larger_than_its_calibration_is_a_warning_too(data: Path, trained: Path) -> None:
    test = load_images(data, split="test")
    index = IDMLIndex.build(trained, test, progress=False)
    few = test.select(test.labels < 8)
    (warning,) = index.calibrate(few, absent=0.3, progress=False).warnings
    assert f"has {len(test)} images, but {len(few)} calibrate it" in warning
    assert index.calibrate(test, progress=False).warnings == ()
