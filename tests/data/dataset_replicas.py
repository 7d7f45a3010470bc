"""Tiny copies of the registered data sets, in the layouts of their authors and in the schema of their Hub copies."""

from __future__ import annotations

import dataclasses
import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
from scipy.io import savemat

from idml_hf.data import DATASETS

CUB_NAMES = [f"{number:03d}.Bird_{number}" for number in range(1, 201)]
CUB_NAMES[0], CUB_NAMES[99], CUB_NAMES[100] = "001.Black_footed_Albatross", "100.Brown_Pelican", "101.White_Pelican"
CAR_NAMES = [f"Maker Model {number:03d}" for number in range(1, 197)]
WORDNET_IDS = ["n01440764", "n01443537", "n01484850"]
SOP_TRAIN, SOP_TEST = range(1, 7), range(7, 12)
CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100_NAMES = [f"fine{number:03d}" for number in range(100)]

REPLICA_COUNTS = {
    "cub": {"train": (200, 100), "test": (200, 100)},
    "cars": {"train": (196, 98), "test": (196, 98)},
    "sop": {"train": (12, 6), "test": (10, 5)},
    "imagenet": {"train": (9, 3), "test": (6, 3)},
    "cifar10": {"train": (50, 10), "test": (10, 10)},
    "cifar100": {"train": (200, 100), "test": (100, 100)},
    "fashion-mnist": {"train": (30, 10), "test": (20, 10)},
}


def expect(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    """Register `name` with the counts of its replica, and other `changes`."""
    spec = dataclasses.replace(DATASETS[name], expected=REPLICA_COUNTS[name], **changes)
    monkeypatch.setitem(DATASETS, name, spec)


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> PIL.Image.Image:
    """Noise: another image for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def save(path: Path, seed: int) -> Path:
    """Write a picture, and the folders that lead to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)
    return path


def write_cub(root: Path, per_class: int = 2) -> Path:
    """`images.txt` out of order, as nothing promises that it is in order."""
    folder = root / "CUB_200_2011"
    entries = [(label, f"{name}/{i}.jpg") for label, name in enumerate(CUB_NAMES) for i in range(per_class)]
    for number, (_, relative) in enumerate(entries):
        save(folder / "images" / relative, number)
    numbered = list(enumerate(entries, start=1))
    shuffled = [numbered[i] for i in np.random.default_rng(0).permutation(len(numbered))]
    (folder / "images.txt").write_text("".join(f"{n} {relative}\n" for n, (_, relative) in shuffled))
    (folder / "image_class_labels.txt").write_text("".join(f"{n} {label + 1}\n" for n, (label, _) in numbered))
    (folder / "classes.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(CUB_NAMES, start=1)))
    return root


def write_cars(root: Path, per_class: int = 2, relative: Callable[[int], str] = "car_ims/{:06d}.jpg".format) -> Path:
    """`cars_annos.mat` with the structure of the original."""
    labels = [label for label in range(196) for _ in range(per_class)]
    dtype = [("relative_im_path", object), ("bbox_x1", object), ("class", object), ("test", object)]
    annotations = np.zeros((1, len(labels)), dtype=dtype)
    for i, label in enumerate(labels):
        annotations[0, i] = (relative(i + 1), 1, label + 1, i % 2)
        if relative(i + 1).startswith("car_ims"):
            save(root / relative(i + 1), i)
    names = np.array(CAR_NAMES, dtype=object)[None]
    savemat(root / "cars_annos.mat", {"annotations": annotations, "class_names": names})
    return root


def write_sop(root: Path) -> Path:
    """`Ebay_train.txt` and `Ebay_test.txt`."""
    folder = root / "Stanford_Online_Products"
    number = 0
    for split, products in (("train", SOP_TRAIN), ("test", SOP_TEST)):
        lines = ["image_id class_id super_class_id path"]
        for product in products:
            for i in range(2):
                number += 1
                relative = f"chair_final/{product:012d}_{i}.JPG"
                save(folder / relative, number)
                lines.append(f"{number} {product} 1 {relative}")
        (folder / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_imagenet(root: Path) -> Path:
    """`train/` and `val/`."""
    for split, per_class in (("train", 3), ("val", 2)):
        for label, wordnet_id in enumerate(WORDNET_IDS):
            for i in range(per_class):
                save(root / split / wordnet_id / f"{wordnet_id}_{i}.JPEG", 100 * label + 10 * i + len(split))
    return root


def _pixels(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, 3072), dtype=np.uint8)


def write_cifar10(root: Path, version: str) -> Path:
    """Five training batches and one test batch of ten images, one a class."""
    files = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    folder = root / {"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"}[version]
    folder.mkdir(parents=True)
    for seed, name in enumerate(files):
        pixels, labels = _pixels(10, seed), np.arange(10, dtype=np.uint8)[:: -1 if seed % 2 else 1]
        if version == "binary":
            np.concatenate([labels[:, None], pixels], axis=1).tofile(folder / f"{name}.bin")
        else:
            content = {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"x"}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    if version == "binary":
        (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_NAMES) + "\n\n")
    else:
        names = {b"label_names": [name.encode() for name in CIFAR10_NAMES]}
        (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return root


def write_cifar100(root: Path, version: str) -> Path:
    """Two training images and one test image a class."""
    folder = root / {"python": "cifar-100-python", "binary": "cifar-100-binary"}[version]
    folder.mkdir(parents=True)
    for split, per_class in (("train", 2), ("test", 1)):
        fine = np.tile(np.arange(100, dtype=np.uint8), per_class)
        pixels = _pixels(len(fine), per_class)
        if version == "binary":
            np.concatenate([fine[:, None] // 5, fine[:, None], pixels], axis=1).tofile(folder / f"{split}.bin")
        else:
            content = {"data": pixels, "fine_labels": fine.tolist(), "coarse_labels": (fine // 5).tolist()}
            (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    if version == "binary":
        (folder / "fine_label_names.txt").write_text("\n".join(CIFAR100_NAMES) + "\n")
    else:
        (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": CIFAR100_NAMES}, protocol=2))
    return root


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array as IDX file."""
    return np.array([0x0800 + array.ndim, *array.shape], dtype=">u4").tobytes() + array.tobytes()


def write_fashion_mnist(root: Path) -> Path:
    """Four gzipped IDX files."""
    rng = np.random.default_rng(0)
    for prefix, per_class in (("train", 3), ("t10k", 2)):
        labels = np.tile(np.arange(10, dtype=np.uint8), per_class)
        pixels = rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pixels)))
        (root / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "cub": write_cub,
    "cars": write_cars,
    "sop": write_sop,
    "imagenet": write_imagenet,
    "cifar10": lambda root: write_cifar10(root, "binary"),
    "cifar100": lambda root: write_cifar100(root, "binary"),
    "fashion-mnist": write_fashion_mnist,
}


def hub_tables(name: str) -> dict[str, datasets.Dataset]:
    """The splits of the Hub's copy of a data set, in its schema; CUB and Cars split each class there."""
    names = {"cub": CUB_NAMES, "cars": CAR_NAMES, "imagenet": WORDNET_IDS, "cifar10": CIFAR10_NAMES}
    if name in ("cub", "cars"):
        return {
            split: _table(range(len(names[name])), names[name], seed) for seed, split in enumerate(("train", "test"))
        }
    if name == "sop":
        return {
            "train": _table([p for p in SOP_TRAIN for _ in range(2)], None, 0, label="item_id"),
            "test": _table([p for p in SOP_TEST for _ in range(2)], None, 1, label="item_id"),
        }
    if name == "imagenet":
        return {
            "train": _table([0, 1, 2] * 3, WORDNET_IDS, 0),
            "validation": _table([0, 1, 2] * 2, WORDNET_IDS, 1),
            "test": _table([-1] * 4, WORDNET_IDS, 2),
        }
    if name == "cifar10":
        return {
            "train": _table(list(range(10)) * 5, CIFAR10_NAMES, 0, image="img", size=(32, 32)),
            "test": _table(range(10), CIFAR10_NAMES, 1, image="img", size=(32, 32)),
        }
    if name == "cifar100":
        return {
            "train": _table(list(range(100)) * 2, CIFAR100_NAMES, 0, image="img", label="fine_label", size=(32, 32)),
            "test": _table(range(100), CIFAR100_NAMES, 1, image="img", label="fine_label", size=(32, 32)),
        }
    fashion = [f"garment {number}" for number in range(10)]
    return {
        "train": _table(list(range(10)) * 3, fashion, 0, size=(28, 28)),
        "test": _table(list(range(10)) * 2, fashion, 1, size=(28, 28)),
    }


def _table(
    labels: range | list[int],
    names: list[str] | None,
    seed: int,
    image: str = "image",
    label: str = "label",
    size: tuple[int, int] = (12, 10),
) -> datasets.Dataset:
    feature = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    features = datasets.Features({image: datasets.Image(), label: feature, "note": datasets.Value("string")})
    pictures = [picture(1000 * seed + number, size) for number in range(len(labels))]
    columns = {image: pictures, label: list(labels), "note": ["x"] * len(labels)}
    return datasets.Dataset.from_dict(columns, features=features)


def write_hub(root: Path, name: str) -> Path:
    """The files of the Hub's repository: `data/train-00000-of-00001.parquet` and so on."""
    for split, table in hub_tables(name).items():
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(str(path))
    return root
