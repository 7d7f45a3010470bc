"""Fashion-MNIST in the IDX files of its authors (Xiao et al., 2017; Debian's package `dataset-fashion-mnist`)."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

from idml_hf.data.annotation_files import locate
from idml_hf.data.image_set import ImageSet

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = {"train": "train", "test": "t10k"}
MAX_BYTES = 2**30


def read_fashion_mnist(root: Path) -> dict[str, ImageSet]:
    """Read `train-images-idx3-ubyte.gz` and its three siblings, gzipped or not.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is not what its header says.
    """
    splits = {}
    for split, prefix in FILES.items():
        pixels = read_idx(_file(root, f"{prefix}-images-idx3-ubyte"), dimensions=3)
        labels = read_idx(_file(root, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
        if len(pixels) != len(labels) or labels.max(initial=0) >= len(CLASSES):
            raise ValueError(
                f"{root}: {len(labels)} labels up to {labels.max(initial=0)} for {len(pixels)} {split} images"
            )
        splits[split] = ImageSet.from_arrays(pixels, labels, CLASSES, f"fashion-mnist {split}")
    return splits


def _file(root: Path, name: str) -> Path:
    plain = root / name
    return plain if plain.exists() else locate(root, f"{name}.gz") / f"{name}.gz"


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A uint8 array of `dimensions` axes from an IDX file; no more is unpacked than its header announces.

    Raises:
        ValueError: if the file is broken, longer or shorter than announced, or announces more than a gibibyte.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, *shape = np.frombuffer(file.read(4 + 4 * dimensions), dtype=">u4").tolist()
            size = math.prod(shape)
            if magic != 0x0800 + dimensions or len(shape) != dimensions or size > MAX_BYTES:
                raise ValueError("its header is not that of such a file")
            data = file.read(size + 1)
            if len(data) != size:
                raise ValueError(
                    f"it should have {size} bytes of data, and has {'more' if len(data) > size else len(data)}"
                )
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as IDX file: {error}") from error
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
