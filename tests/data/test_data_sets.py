"""Registered data sets: official layouts and Hub schemas, exact splits, expected counts, and crafted files."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
from pathlib import Path

import dataset_replicas as replicas
import datasets
import numpy as np
import pytest

from idml_hf.data import DATASETS, check_dataset, hub_download, load_classification_data, load_retrieval_data
from idml_hf.data.readers.cifar import load_arrays

RETRIEVAL = ["cub", "cars", "sop"]
CLASSIFICATION = ["imagenet", "cifar10", "cifar100", "fashion-mnist"]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Name -> folder of the replica in its official layout."""
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in replicas.WRITERS.items()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Let replicas stand for the Hub, and note what was asked for."""
    load, asked = datasets.load_dataset, {}
    ids = {spec.hub_id: name for name, spec in DATASETS.items() if spec.hub_id}

    def load_dataset(hub_id, revision=None):
        asked.update(hub_id=hub_id, revision=revision)
        folder = replicas.write_hub(tmp_path / "hub", ids[hub_id])
        return load(str(folder), cache_dir=str(tmp_path / "cache"))

    def snapshot_download(hub_id, repo_type, revision, allow_patterns, local_files_only):
        asked.update(hub_id=hub_id, revision=revision)
        assert repo_type == "dataset" and not local_files_only and allow_patterns == ["data/train-*", "data/test-*"]
        return str(replicas.write_hub(tmp_path / "hub", ids[hub_id]))

    monkeypatch.setattr(hub_download.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_download, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub_download, "why_unreachable", lambda hub_id, revision: None)
    return asked


EXPECTED_CLASSES = {
    "cub": (replicas.CUB_NAMES[:100], replicas.CUB_NAMES[100:]),
    "cars": (replicas.CAR_NAMES[:98], replicas.CAR_NAMES[98:]),
    "sop": ([str(product) for product in replicas.SOP_TRAIN], [str(product) for product in replicas.SOP_TEST]),
}


@pytest.mark.parametrize("name", RETRIEVAL)
@pytest.mark.parametrize("layout", ["official", "hub", "parquet"])
def test_retrieval_split_gives_exactly_the_right_classes(name, layout, official, hub, tmp_path, monkeypatch):
    replicas.expect(monkeypatch, name)
    roots = {"official": official[name], "hub": None, "parquet": tmp_path / "copy"}
    if layout == "parquet":
        replicas.write_hub(roots["parquet"], name)
    data = load_retrieval_data(name, root=roots[layout])
    train, test = EXPECTED_CLASSES[name]
    assert list(data.train.class_names) == train
    assert list(data.test.class_names) == test
    for images, names in ((data.train, train), (data.test, test)):
        assert images.labels.dtype == np.int64
        assert np.bincount(images.labels).tolist() == [2] * len(names)
    if layout == "hub":
        assert hub == {"hub_id": DATASETS[name].hub_id, "revision": DATASETS[name].revision}


def test_official_labels_belong_to_the_images(official, monkeypatch):
    replicas.expect(monkeypatch, "cub")
    data = load_retrieval_data("cub", root=official["cub"])
    for images in (data.train, data.test):
        folders = [Path(path).parent.name for path in images.paths]
        assert folders == [images.class_names[label] for label in images.labels]
    assert data.test.original_labels.min() == 100
    replicas.expect(monkeypatch, "cars")
    cars = load_retrieval_data("cars", root=official["cars"]).test
    assert [int(Path(path).stem) for path in cars.paths] == list(range(197, 393))
    assert cars.original_labels.tolist() == [98 + i // 2 for i in range(196)]


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("layout", ["official", "hub"])
def test_classification_splits(name, layout, official, hub, monkeypatch):
    replicas.expect(monkeypatch, name, system_folder=None)
    data = load_classification_data(name, root=official[name] if layout == "official" else None)
    counts = replicas.REPLICA_COUNTS[name]
    assert (len(data.train), data.train.num_classes) == counts["train"]
    assert (len(data.test), data.test.num_classes) == counts["test"]
    assert data.train.class_names == data.test.class_names
    assert data.validation is None
    if layout == "hub":
        assert hub == {"hub_id": DATASETS[name].hub_id, "revision": DATASETS[name].revision}


@pytest.mark.parametrize("version", ["python", "binary"])
def test_cifar_pixels_and_labels(version, tmp_path, monkeypatch):
    replicas.expect(monkeypatch, "cifar10")
    data = load_classification_data("cifar10", root=replicas.write_cifar10(tmp_path, version))
    assert data.class_names == tuple(replicas.CIFAR10_NAMES)
    assert data.train.labels[:12].tolist() == [*range(10), 9, 8]
    expected = replicas._pixels(10, seed=1)[1].reshape(3, 32, 32)
    assert (data.train.tensor(11).numpy() == expected).all()
    assert (np.asarray(data.train[11]) == expected.transpose(1, 2, 0)).all()
    replicas.expect(monkeypatch, "cifar100")
    fine = load_classification_data("cifar100", root=replicas.write_cifar100(tmp_path, version))
    assert fine.test.labels.tolist() == list(range(100))
    assert fine.class_names == tuple(replicas.CIFAR100_NAMES)
    assert (fine.test.tensor(7).numpy().ravel() == replicas._pixels(100, seed=1)[7]).all()


def test_cifar100_for_retrieval_splits_by_class(official, monkeypatch):
    replicas.expect(monkeypatch, "cifar100")
    data = load_retrieval_data("cifar100", root=official["cifar100"])
    assert list(data.train.class_names + data.test.class_names) == replicas.CIFAR100_NAMES
    assert (len(data.train), len(data.test)) == (150, 150)


def test_fashion_mnist_of_debian():
    if DATASETS["fashion-mnist"].installed() is None:
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = load_classification_data("fashion-mnist", check_images=False)
    assert (len(data.train), len(data.test)) == (60000, 10000)
    assert data.class_names[data.train.labels[0]] == "Ankle boot"
    assert data.train.tensor(0).shape == (3, 28, 28)


ONE_OFF = {
    "cub": "cub: train should have 5864 images of 100 classes, but has 200 of 100; "
    "cub: test should have 5924 images of 100 classes, but has 200 of 100",
    "cars": "cars: train should have 8054 images of 98 classes, but has 196 of 98; "
    "cars: test should have 8131 images of 98 classes, but has 196 of 98",
    "sop": "sop: train should have 59551 images of 11318 classes, but has 12 of 6; "
    "sop: test should have 60502 images of 11316 classes, but has 10 of 5",
    "imagenet": "imagenet: train should have 1281167 images of 1000 classes, but has 9 of 3; "
    "imagenet: test should have 50000 images of 1000 classes, but has 6 of 3",
    "cifar10": "cifar10: train should have 50000 images of 10 classes, but has 50 of 10; "
    "cifar10: test should have 10000 images of 10 classes, but has 10 of 10",
    "cifar100": "cifar100: train should have 50000 images of 100 classes, but has 200 of 100; "
    "cifar100: test should have 10000 images of 100 classes, but has 100 of 100",
    "fashion-mnist": "fashion-mnist: train should have 60000 images of 10 classes, but has 30 of 10; "
    "fashion-mnist: test should have 10000 images of 10 classes, but has 20 of 10",
}


@pytest.mark.parametrize("name", ONE_OFF)
def test_wrong_counts_say_what_was_expected_and_found(name, official):
    load = load_retrieval_data if name in RETRIEVAL else load_classification_data
    with pytest.raises(ValueError) as error:
        load(name, root=official[name])
    assert str(error.value) == ONE_OFF[name] + ": another version, or an incomplete download"


def test_emoji_counts(tmp_path):
    embedded = DATASETS["emoji-mini"].embedded
    for split in ("train", "test"):
        shutil.copy(embedded / f"{split}.parquet", tmp_path)
    with pytest.raises(ValueError, match=r"emoji: train should have 7518 images of 931 classes, but has 2300 of 240"):
        load_retrieval_data("emoji", root=tmp_path)
    with pytest.raises(ValueError, match="emoji needs root"):
        load_retrieval_data("emoji")


def test_another_order_of_classes_is_noticed(official, tmp_path, monkeypatch):
    replicas.expect(monkeypatch, "cub")
    root = shutil.copytree(official["cub"], tmp_path / "copy")
    names = [f"{n} {name}" for n, name in enumerate(reversed(replicas.CUB_NAMES), start=1)]
    (root / "CUB_200_2011/classes.txt").write_text("\n".join(names))
    with pytest.raises(ValueError, match=r"first test class should be 101.White_Pelican, but is 100.Brown_Pelican"):
        load_retrieval_data("cub", root=root)


@pytest.mark.parametrize(
    "evil", ["../../secret.jpg", "/etc/passwd", "..\\secret.jpg", "C:\\secret.jpg", "a/../../b.jpg"]
)
def test_paths_that_lead_out_are_refused(evil, official, tmp_path):
    cub = shutil.copytree(official["cub"], tmp_path / "cub")
    listing = cub / "CUB_200_2011/images.txt"
    listing.write_text(listing.read_text() + f"999 {evil}\n")
    labels = cub / "CUB_200_2011/image_class_labels.txt"
    labels.write_text(labels.read_text() + "999 1\n")
    sop = shutil.copytree(official["sop"], tmp_path / "sop")
    with (sop / "Stanford_Online_Products/Ebay_train.txt").open("a") as file:
        file.write(f"99 1 1 {evil}\n")
    cars = replicas.write_cars(tmp_path, per_class=1, relative=lambda number: evil)
    table = tmp_path / "table"
    replicas.save(table / "a.jpg", 0)
    (table / "metadata.csv").write_text(f"file_name,label\na.jpg,x\n{evil},y\n")
    for name, root in (("cub", cub), ("sop", sop), ("cars", cars), (table, None)):
        with pytest.raises(ValueError, match="leads out of") as error:
            load_retrieval_data(name, root=root)
        assert repr(evil) in str(error.value)


def test_missing_classes_are_named(official, tmp_path):
    cub = shutil.copytree(official["cub"], tmp_path / "cub")
    labels = cub / "CUB_200_2011/image_class_labels.txt"
    labels.write_text("\n".join(line for line in labels.read_text().splitlines() if not line.startswith("7 ")))
    with pytest.raises(ValueError, match=r"image_class_labels.txt: image 7 \(004.Bird_4/0.jpg\) has no class"):
        load_retrieval_data("cub", root=cub)
    labels.write_text("1 999\n")
    with pytest.raises(ValueError, match=r"has no class|unknown to classes\.txt"):
        load_retrieval_data("cub", root=cub)
    sop = shutil.copytree(official["sop"], tmp_path / "sop")
    with (sop / "Stanford_Online_Products/Ebay_test.txt").open("a") as file:
        file.write("99  1 chair_final/x.JPG\n")
    with pytest.raises(ValueError, match=r"Ebay_test.txt, line 12: expected image_id class_id super_class_id path"):
        load_retrieval_data("sop", root=sop)


def test_files_that_are_not_what_they_should_be(tmp_path):
    (tmp_path / "cars_annos.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match="not the annotation file of Cars196"):
        load_retrieval_data("cars", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no images.txt"):
        load_retrieval_data("cub", root=tmp_path)
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"CUB_200_2011\.tgz is an archive, which is not opened: extract it first"
    ):
        load_retrieval_data("cub", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="archive"):
        load_retrieval_data("cub", root=tmp_path / "CUB_200_2011.tgz")


def test_unsorted_imagenet_validation(official, tmp_path, monkeypatch):
    replicas.expect(monkeypatch, "imagenet")
    root = shutil.copytree(official["imagenet"], tmp_path / "imagenet")
    shutil.rmtree(root / "val")
    replicas.save(root / "val/ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(ValueError, match="val has no class folders"):
        load_classification_data("imagenet", root=root)


class Malicious:
    """A pickle that creates a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_cannot_run_code(tmp_path):
    root = replicas.write_cifar10(tmp_path, "python")
    evil = root / "cifar-10-batches-py/data_batch_1"
    evil.write_bytes(pickle.dumps({b"data": Malicious(tmp_path / "ran")}))
    with pytest.raises(
        ValueError, match=r"data_batch_1 cannot be read as a pickle of arrays: it asks for posix.mkdir"
    ):
        load_classification_data("cifar10", root=root)
    assert not (tmp_path / "ran").exists()
    evil.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.")
    with pytest.raises(ValueError, match="codec 'bz2' is refused"):
        load_arrays(evil)
    evil.write_bytes(b"\x80\x02cbuiltins\neval\n.")
    with pytest.raises(ValueError, match=r"builtins.eval, refused"):
        load_arrays(evil)


def test_broken_cifar_files(tmp_path):
    root = replicas.write_cifar10(tmp_path, "binary")
    batch = root / "cifar-10-batches-bin/data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-5])
    with pytest.raises(ValueError, match="not a multiple of 3073"):
        load_classification_data("cifar10", root=root)
    shutil.rmtree(root / "cifar-10-batches-bin")
    root = replicas.write_cifar10(tmp_path, "python")
    path = root / "cifar-10-batches-py/test_batch"
    path.write_bytes(pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}))
    with pytest.raises(ValueError, match="expected uint8 data"):
        load_classification_data("cifar10", root=root)
    path.write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}))
    with pytest.raises(ValueError, match="has no 'labels'"):
        load_classification_data("cifar10", root=root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "cannot be read as IDX file"),
        (gzip.compress(replicas.idx_bytes(np.zeros((2, 28, 28), np.uint8)) + b"more"), "has more"),
        (
            gzip.compress(replicas.idx_bytes(np.zeros((2, 28, 28), np.uint8))[:-9]),
            "should have 1568 bytes of data, and",
        ),
        (gzip.compress(np.array([0x803, 2**31, 2**20, 28], dtype=">u4").tobytes()), "header"),
        (gzip.compress(b"\0\0"), "header|buffer"),
    ],
    ids=["not gzip", "too much", "too little", "sizes", "cut header"],
)
def test_broken_idx_files(content, message, tmp_path):
    root = replicas.write_fashion_mnist(tmp_path)
    (root / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_classification_data("fashion-mnist", root=root)


def test_scripted_data_sets_get_a_clear_message(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise RuntimeError("Dataset scripts are no longer supported, but found Stanford-Cars.py")

    monkeypatch.setattr(hub_download.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_download, "why_unreachable", lambda hub_id, revision: None)
    with pytest.raises(ValueError, match=r"org/scripted is read by a script .* look for a copy in parquet"):
        load_retrieval_data("org/scripted")


def test_check_dataset_reports_everything(official, tmp_path):
    report = check_dataset("cub", official["cub"])
    assert report.splits["train"].images == 200
    assert not report.ok
    assert report.problems[0].startswith("cub: train should have 5864 images")
    assert report.contact_sheet.width > 200

    root = tmp_path / "folder"
    for split in ("train", "test"):
        for number, name in enumerate("ab"):
            replicas.save(root / split / (split + name) / "0.png", seed=10 * len(split) + number)
    shutil.copy(root / "train/traina/0.png", root / "test/testb/copy.png")
    (root / "test/testa/broken.png").write_bytes((root / "test/testa/0.png").read_bytes()[:100])
    report = check_dataset(root)
    assert [image.id for image in report.unreadable] == [str(root / "test/testa/broken.png")]
    assert report.duplicates == [(str(root / "train/traina/0.png"), str(root / "test/testb/copy.png"))]
    assert report.to_dict()["splits"]["test"] == {
        "images": 4,
        "classes": 2,
        "smallest_class": 2,
        "largest_class": 2,
        "classes_with_one_image": 0,
    }
    text = report.describe()
    assert (
        "1 unreadable images" in text and "1 images both in train and test" in text and "NOT as it should be" in text
    )


def test_check_dataset_finds_the_embedded_one_well():
    report = check_dataset("emoji-mini")
    assert report.ok and report.describe().endswith("all is well")
