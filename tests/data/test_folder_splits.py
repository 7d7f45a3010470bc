"""Folders called like splits are splits, or are refused; metadata files; what is skipped is said."""

from __future__ import annotations

import json
import os
import sys

import dataset_replicas as replicas
import datasets
import numpy as np
import pytest

from idml_hf.data import check_dataset, load_classification_data, load_images, load_retrieval_data
from idml_hf.data.split_names import SPLIT_NAMES

PAIRS = [("Train", "Test"), ("training", "testing"), ("TRAIN", "TEST"), ("train", "dev"), ("train", "val")]
PAIRS += [("train", "valid"), ("Training", "Validation"), ("train", "evaluation")]


def classes(folder, *names):
    for number, name in enumerate(names):
        replicas.save(folder / name / "0.png", hash_of(folder.name + name) + number)


def hash_of(text):
    return sum(text.encode())


@pytest.mark.parametrize(("train", "test"), PAIRS)
def test_splits_by_any_name(train, test, tmp_path):
    classes(tmp_path / train, "ant", "bee")
    classes(tmp_path / test, "cow", "dog")
    data = load_retrieval_data(tmp_path)
    assert data.train.class_names == ("ant", "bee") and data.test.class_names == ("cow", "dog")
    assert load_images(tmp_path).class_names == ("cow", "dog")
    assert len(load_images(tmp_path, "all")) == 4


@pytest.mark.parametrize("name", [name for names in SPLIT_NAMES.values() for name in names])
def test_a_lone_split_is_the_whole(name, tmp_path):
    classes(tmp_path / name, "ant", "bee", "cow")
    assert load_images(tmp_path).class_names == ("ant", "bee", "cow")
    assert load_retrieval_data(tmp_path).train.class_names == ("ant",)


@pytest.mark.parametrize("both", [("train", "Training"), ("val", "dev"), ("test", "Testing")])
def test_two_names_of_one_split_are_refused(both, tmp_path):
    for name in ("train", "test", *both):
        classes(tmp_path / name, "ant")
    with pytest.raises(ValueError, match="which mean the same split: keep one of them"):
        load_images(tmp_path)


def test_splits_of_plain_images_are_no_classes(tmp_path):
    for name in ("train", "test"):
        replicas.save(tmp_path / name / "0.png", len(name))
    assert load_images(tmp_path, "train").num_classes == 0 and len(load_images(tmp_path)) == 1
    for load in (load_retrieval_data, load_classification_data):
        with pytest.raises(ValueError, match="the images have no classes"):
            load(tmp_path)


def test_an_unlabelled_test_split_is_left_out_with_a_word(tmp_path, caplog):
    classes(tmp_path / "train", "ant", "bee")
    replicas.save(tmp_path / "test" / "0.png", 9)
    data = load_retrieval_data(tmp_path)
    assert (data.train.class_names, data.test.class_names) == (("ant",), ("bee",))
    assert "no image of test has a class, so it is left out" in caplog.text


@pytest.mark.parametrize("split", ["test", "val", "dev", "testing"])
def test_one_split_beside_classes_is_refused(split, tmp_path):
    classes(tmp_path, "ant", "bee")
    replicas.save(tmp_path / split / "0.png", 9)
    with pytest.raises(ValueError, match=f"{split}, called like splits, beside ant, bee, called like classes"):
        load_images(tmp_path)


def test_a_train_may_be_a_vehicle(tmp_path):
    classes(tmp_path, "bus", "car", "train")
    assert load_images(tmp_path).class_names == ("bus", "car", "train")
    classes(tmp_path / "train", "ant")
    with pytest.raises(ValueError, match="train, called like splits, beside bus, car"):
        load_images(tmp_path)


def test_folders_beside_splits_are_left_out_with_a_word(tmp_path, caplog):
    for name in ("train", "test"):
        classes(tmp_path / name, name + "a")
    classes(tmp_path, "drawings")
    assert len(load_images(tmp_path, "all")) == 2
    assert "left out beside them: drawings" in caplog.text


ROWS = [{"file_name": f"images/{i}.png", "label": "abc"[i // 2], "camera": "xy"[i % 2]} for i in range(6)]


def write_metadata(folder, rows, kind):
    for row in rows:
        replicas.save(folder / row["file_name"], hash_of(row["file_name"]))
    if kind == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    elif kind == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        datasets.Dataset.from_list(rows).to_parquet(str(folder / "metadata.parquet"))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_of_every_kind(kind, tmp_path, caplog):
    write_metadata(tmp_path, ROWS, kind)
    data = load_retrieval_data(tmp_path, group_column="camera")
    assert data.train.class_names == ("a",) and data.test.class_names == ("b", "c")
    assert [data.test.group_names[group] for group in data.test.groups] == ["x", "y", "x", "y"]
    assert "not listed" not in caplog.text
    replicas.save(tmp_path / "images" / "extra.png", 99)
    assert len(load_images(tmp_path)) == 6 and "1 images in the folder are not listed in it" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_whose_files_lie_in_splits(kind, tmp_path):
    rows = [
        {"file_name": f"{split}/{i}.png", "label": split[0] + "ab"[i]} for split in ("train", "test") for i in (0, 1)
    ]
    write_metadata(tmp_path, rows, kind)
    data = load_retrieval_data(tmp_path)
    assert data.train.class_names == ("ta", "tb") and len(data.train) == len(data.test) == 2


def test_metadata_numbers_are_in_the_order_of_numbers(tmp_path):
    write_metadata(tmp_path, [{"file_name": f"{i}.png", "label": i} for i in (10, 9, 100)], "jsonl")
    assert load_images(tmp_path).class_names == ("9", "10", "100")


def test_metadata_without_labels_takes_the_classes_of_the_folders(tmp_path):
    rows = [{"file_name": f"{name}/{i}.png", "shop": f"{name}{i}"} for name in "ba" for i in (0, 1)]
    write_metadata(tmp_path, rows, "csv")
    images = load_images(tmp_path)
    assert images.class_names == ("a", "b") and images.labels.tolist() == [1, 1, 0, 0]
    assert images.extra["shop"][:] == ["b0", "b1", "a0", "a1"]


def test_metadata_without_labels_takes_the_classes_of_the_folders_of_each_split(tmp_path):
    names = [f"{split}/{split[0]}{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in (0, 1)]
    write_metadata(tmp_path, [{"file_name": name, "shop": name} for name in names], "csv")
    data = load_retrieval_data(tmp_path)
    assert data.train.class_names == ("ta", "tb") and data.test.class_names == ("ta", "tb")


@pytest.mark.parametrize("names", [["0.png"], ["images/0.png"], ["a/0.png", "0.png"]])
def test_metadata_without_labels_has_no_classes(names, tmp_path, caplog):
    write_metadata(tmp_path, [{"file_name": name, "text": "a cat"} for name in names], "jsonl")
    assert (load_images(tmp_path).labels == -1).all() and "no column 'label'" in caplog.text
    with pytest.raises(ValueError, match=r"metadata\.jsonl has no column 'label'; its columns: file_name, text"):
        load_retrieval_data(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"file_name": "0.png", "label": "a"}\n{"file_name": ', r"metadata\.jsonl, line 2: not JSON"),
        (b"[" * 100_000, r"metadata\.jsonl, line 1: not JSON"),
        (b"[1]\n", r"line 1: expected an object"),
        (b'{"file_name": "../../x.png", "label": "a"}\n', "leads out of"),
        (b'{"file_name": "0.png", "label": null}\n', "line 1: no label"),
        (b"\xff\xfe\x00", "is not in UTF-8"),
    ],
)
def test_broken_metadata_is_named_by_its_line(content, message, tmp_path):
    replicas.save(tmp_path / "0.png", 0)
    (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_images(tmp_path)


def test_two_metadata_files_are_refused(tmp_path):
    write_metadata(tmp_path, ROWS, "csv")
    write_metadata(tmp_path, ROWS, "jsonl")
    with pytest.raises(ValueError, match=r"both metadata\.csv and metadata\.jsonl"):
        load_images(tmp_path)


def test_skipped_files_are_counted_by_kind(tmp_path, caplog):
    classes(tmp_path, "ant", "bee")
    for i in range(3):
        (tmp_path / "ant" / f"{i}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "bee" / "clip.mov").write_bytes(b"x")
    (tmp_path / "bee" / "notes.txt").write_text("x")
    assert len(load_images(tmp_path)) == 2
    assert "1 .mov" in caplog.text and ".txt" not in caplog.text
    if "pillow_heif" not in sys.modules:
        assert "3 .heic" in caplog.text and "pip install 'idml-hf[heif]'" in caplog.text
        only = tmp_path / "only"
        only.mkdir()
        (only / "a.heic").write_bytes(b"x")
        with pytest.raises(ValueError, match=r"has no images: skipped .*1 \.heic.*heif"):
            load_images(only)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep names in Unicode")
def test_names_that_are_not_utf8(tmp_path):
    for folder, name in ((b"caf\xe9", b"\xff.png"), (b"caf\xe8", b"\xfe.png")):
        os.makedirs(os.path.join(os.fsencode(tmp_path), folder))
        replicas.save(tmp_path / "x.png", folder[-1])
        os.replace(tmp_path / "x.png", os.path.join(os.fsencode(tmp_path), folder, name))
    images = load_images(tmp_path)
    assert images.class_names == (r"caf\xe8", r"caf\xe9")
    assert [os.path.relpath(path, tmp_path) for path in images.paths] == [r"caf\xe8/\xfe.png", r"caf\xe9/\xff.png"]
    for index, seed in enumerate((0xE8, 0xE9)):
        assert (np.asarray(images[index]) == np.asarray(replicas.picture(seed))).all()
    json.dumps([images.class_names, images.paths], ensure_ascii=False).encode("utf-8")


def test_one_picture_in_two_classes_is_reported(tmp_path):
    for split in ("train", "test"):
        classes(tmp_path / split, split + "a", split + "b")
    replicas.save(tmp_path / "train" / "traina" / "twin.png", 77)
    replicas.save(tmp_path / "train" / "trainb" / "twin.png", 77)
    replicas.save(tmp_path / "train" / "trainb" / "same class.png", 77)
    report = check_dataset(tmp_path)
    first = f"{tmp_path}/train/traina/twin.png (traina)"
    assert report.two_classes == [
        (first, f"{tmp_path}/train/trainb/same class.png (trainb)"),
        (first, f"{tmp_path}/train/trainb/twin.png (trainb)"),
    ]
    assert not report.ok and "2 pictures in two classes" in report.describe()
    assert report.to_dict()["two_classes"][0][0] == first


def test_a_parquet_file_of_any_name_is_one_table(tmp_path):
    table = datasets.Dataset.from_dict({"image": [replicas.picture(0)], "label": ["a"]})
    table.to_parquet(str(tmp_path / "0000.parquet"))
    assert load_images(tmp_path).class_names == ("a",)
    classes(tmp_path, "ant", "bee")
    assert load_images(tmp_path).class_names == ("ant", "bee")
