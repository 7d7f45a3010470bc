"""CIFAR-10 and CIFAR-100 in the batches of their authors (Krizhevsky, 2009), binary version or Python version."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idml_hf.data.annotation_files import locate
from idml_hf.data.image_set import ImageSet

PIXELS = 3 * 32 * 32


class Batches(NamedTuple):
    """Files and keys of one of the two data sets."""

    python_folder: str
    binary_folder: str
    files: dict[str, list[str]]
    python_meta: str
    binary_meta: str
    label_key: str
    names_key: str
    label_bytes: int  # before each image of the binary version; the last of them is the class


CIFAR10 = Batches(
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    files={"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
    python_meta="batches.meta",
    binary_meta="batches.meta.txt",
    label_key="labels",
    names_key="label_names",
    label_bytes=1,
)
CIFAR100 = Batches(
    python_folder="cifar-100-python",
    binary_folder="cifar-100-binary",
    files={"train": ["train"], "test": ["test"]},
    python_meta="meta",
    binary_meta="fine_label_names.txt",
    label_key="fine_labels",
    names_key="fine_label_names",
    label_bytes=2,
)


def read_cifar(root: Path, batches: Batches) -> dict[str, ImageSet]:
    """Read the official train and test images.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is not what it should be; a pickle that asks for anything but arrays is not run.
    """
    try:
        folder = locate(root, batches.binary_meta, batches.binary_folder)
        names = [line.strip() for line in (folder / batches.binary_meta).read_text().splitlines() if line.strip()]
        read, suffix = _read_binary, ".bin"
    except FileNotFoundError:
        folder = locate(root, batches.python_meta, batches.python_folder)
        names = [_text(name) for name in _value(load_arrays(folder / batches.python_meta), batches.names_key)]
        read, suffix = _read_python, ""
    splits = {}
    for split, files in batches.files.items():
        parts = [read(folder / f"{name}{suffix}", batches) for name in files]
        pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        if len(labels) and labels.max() >= len(names):
            raise ValueError(f"{folder}: class {labels.max()} in {split}, but {len(names)} class names")
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        splits[split] = ImageSet.from_arrays(images, labels, names, f"{batches.python_folder} {split}")
    return splits


read_cifar10 = functools.partial(read_cifar, batches=CIFAR10)
read_cifar100 = functools.partial(read_cifar, batches=CIFAR100)


def _read_binary(path: Path, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    data = np.fromfile(path, dtype=np.uint8)
    width = batches.label_bytes + PIXELS
    if data.size % width:
        raise ValueError(f"{path} has {data.size} bytes, not a multiple of {width}: cut off?")
    rows = data.reshape(-1, width)
    return rows[:, batches.label_bytes :], rows[:, batches.label_bytes - 1].astype(np.int64)


def _read_python(path: Path, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    content = load_arrays(path)
    pixels, labels = np.asarray(_value(content, "data")), np.asarray(_value(content, batches.label_key))
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS) or labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: expected uint8 data of {PIXELS} values an image, and one integer label each")
    return pixels, labels.astype(np.int64)


def _value(content: Any, key: str) -> Any:
    """`content[key]`, whose keys are bytes when Python 2 wrote them."""
    if isinstance(content, dict):
        for spelling in (key, key.encode()):
            if spelling in content:
                return content[spelling]
    raise ValueError(f"a CIFAR file has no {key!r}")


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def load_arrays(path: Path) -> Any:
    """Read a pickle of arrays and plain values without running what it may carry.

    Raises:
        ValueError: if it asks for anything else, or is no pickle.
    """
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file, encoding="bytes").load()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a pickle of arrays: {error}") from error


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What pickles of bytes in protocol 2 call; other codecs, some of which unpack, are refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding!r} is refused")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, refused") from None
