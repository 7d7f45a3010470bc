"""Parquet files, Hub data sets and names: columns found or asked for, suggestions for what is not there."""

from __future__ import annotations

import shutil
import time

import dataset_replicas as replicas
import datasets
import numpy as np
import pytest

from idml_hf.data import DATASETS, load_images, load_retrieval_data


def write(folder, name, **columns):
    """A parquet file with images, and the columns given."""
    folder.mkdir(exist_ok=True)
    number = len(next(iter(columns.values())))
    features = {
        key: datasets.Value("string" if isinstance(value[0], str) else "int64") for key, value in columns.items()
    }
    image = next((key for key in ("image", "img", "photo") if key in columns), None) or "image"
    table = datasets.Dataset.from_dict(
        {image: [replicas.picture(i) for i in range(number)], **columns},
        features=datasets.Features({image: datasets.Image(), **features}),
    )
    table.to_parquet(str(folder / name))


def test_emoji_mini_is_the_default_data_set():
    data = load_retrieval_data("emoji-mini")
    assert data.describe() == (
        "emoji-mini: train 2300 images of 240 classes, test 2279 images of 240 classes, grouped by family"
    )
    assert data.protocol == "grouped:family"
    for images in (data.train, data.test):
        assert set(images.labels) == set(range(240)) and images.num_classes == 240
        assert images.group_names == ("emojione", "fluent", "noto", "openmoji", "twemoji")
        assert images.tensor(0).shape == (3, 48, 48)
    assert not set(data.train.class_names) & set(data.test.class_names)
    assert data.test.original_labels.min() == 240
    assert load_retrieval_data("emoji-mini", group_column="none").protocol == "plain"
    assert load_retrieval_data("emoji-mini", group_column="style").train.group_names[0] == "emojione"
    with pytest.raises(ValueError, match=r"has no column 'artist'; its columns: image, label, name"):
        load_retrieval_data("emoji-mini", group_column="artist")


def test_emoji_mini_ships_with_its_licences():
    folder = DATASETS["emoji-mini"].embedded
    licences = {path.stem for path in (folder / "LICENSES").iterdir()}
    assert licences == {"Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0"}
    assert "Copyright (c) Microsoft Corporation" in (folder / "LICENSES/MIT.txt").read_text()
    card = (folder / "README.md").read_text()
    styles = datasets.Dataset.from_parquet(str(folder / "train.parquet")).unique("style")
    assert all(f"`{style}`" in card for style in styles)


def test_emoji_root_may_be_the_folder_of_both_variants(tmp_path):
    (tmp_path / "full").mkdir()
    for split in ("train", "test"):
        shutil.copy(DATASETS["emoji-mini"].embedded / f"{split}.parquet", tmp_path / "full")
    data = load_retrieval_data("emoji-mini", root=tmp_path)
    assert (len(data.train), data.train.image_id(3)) == (2300, "emoji-mini train row 3")


def test_parquet_folder(tmp_path):
    write(tmp_path, "train.parquet", label=["b", "a", "b"])
    write(tmp_path, "test.parquet", label=["d", "c", "d"])
    data = load_retrieval_data(tmp_path)
    assert data.train.class_names == ("a", "b") and data.train.labels.tolist() == [1, 0, 1]
    assert data.test.class_names == ("c", "d") and data.test.labels.tolist() == [1, 0, 1]
    assert (np.asarray(data.test[1]) == np.asarray(replicas.picture(1))).all()


def test_one_table_is_split_by_class(tmp_path):
    write(tmp_path, "train-00000-of-00002.parquet", label=[7, 5])
    write(tmp_path, "train-00001-of-00002.parquet", label=[5, 9, 11])
    data = load_retrieval_data(tmp_path)
    assert data.train.class_names == ("5", "7")
    assert data.train.original_labels.tolist() == [7, 5, 5]
    assert data.test.class_names == ("9", "11")
    assert data.train.labels.tolist() == [1, 0, 0]
    assert len(load_images(tmp_path)) == 5


def test_columns_by_name_and_by_argument(tmp_path):
    write(tmp_path, "train.parquet", species=["x", "y"], place=["p", "q"])
    write(tmp_path, "test.parquet", species=["v", "w"], place=["p", "p"])
    with pytest.raises(ValueError, match=r"\(train\) has no column 'label'; its columns: image, species, place"):
        load_retrieval_data(tmp_path)
    data = load_retrieval_data(tmp_path, label_column="species", group_column="place")
    assert data.train.class_names == ("x", "y") and data.test.group_names == ("p",)
    with pytest.raises(ValueError, match="no column 'photo'"):
        load_retrieval_data(tmp_path, image_column="photo", label_column="species")
    with pytest.raises(ValueError, match=r"column 'place' holds .*, not images"):
        load_retrieval_data(tmp_path, image_column="place", label_column="species")


def test_rows_without_class_and_broken_files(tmp_path):
    write(tmp_path, "train.parquet", label=["a", None, "b"])
    write(tmp_path, "test.parquet", label=["c", "d"])
    with pytest.raises(ValueError, match=r"\(train\): row 1 has no 'label'"):
        load_retrieval_data(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR0")
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read as parquet"):
        load_retrieval_data(tmp_path)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("emoji-mni", ValueError, r"unknown data set 'emoji-mni'.*\. Did you mean 'emoji-mini'\?"),
        ("cars196", ValueError, r"Did you mean 'cars'\?"),
        ("zzz", ValueError, r"unknown data set 'zzz': no folder, and none of emoji-mini, emoji, cub"),
        ("./zzz", FileNotFoundError, r"\./zzz does not exist"),
        ("/nowhere/at/all", FileNotFoundError, "/nowhere/at/all does not exist"),
        (
            "someone/birds",
            FileNotFoundError,
            r"someone/birds: no such folder here, and not to be had from the Hub",
        ),
    ],
)
def test_what_is_not_there(name, error, message):
    started = time.monotonic()
    with pytest.raises(error, match=message):
        load_retrieval_data(name)
    assert time.monotonic() - started < 5, "a wrong name must not wait for the Hub"


def test_suggestions_among_folders(tmp_path, monkeypatch):
    (tmp_path / "birds").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'birds'\?"):
        load_retrieval_data(tmp_path / "brids")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"Did you mean 'birds'\?"):
        load_retrieval_data("brids")
    with pytest.raises(FileNotFoundError, match=r"emoji-mini: root .*brids does not exist. Did you mean .*birds"):
        load_retrieval_data("emoji-mini", root=tmp_path / "brids")
    (tmp_path / "emoji").mkdir()
    with pytest.raises(ValueError, match=r"emoji needs root .* write \./emoji"):
        load_retrieval_data("emoji")


def test_root_and_files_given_by_mistake(tmp_path):
    with pytest.raises(ValueError, match=r"root is for registered data sets"):
        load_retrieval_data(tmp_path, root=tmp_path)
    archive = tmp_path / "birds.zip"
    archive.write_bytes(b"")
    with pytest.raises(ValueError, match=r"birds\.zip is a file: give a folder; archives are not opened"):
        load_retrieval_data(archive)


def test_to_dataset_is_an_ordinary_data_set():
    images = load_retrieval_data("emoji-mini").train.select([5, 3])
    table = images.to_dataset()
    assert table.column_names == ["image", "label", "group"]
    assert table.features["label"].names == list(images.class_names)
    assert (np.asarray(table[1]["image"]) == np.asarray(images[1])).all()
    assert table["label"][:] == images.labels.tolist()
