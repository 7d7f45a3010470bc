"""The data sets known by name: where they are, how they split, and how many images must come out.

A pinned revision is one at which independent public projects have recorded the schema and counts below. Where none is
known, `revision` is None and the newest one is read: the counts then are the only guard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from idml_hf.data.readers.cars import read_cars
from idml_hf.data.readers.cifar import read_cifar10, read_cifar100
from idml_hf.data.readers.cub import read_cub
from idml_hf.data.readers.fashion_mnist import read_fashion_mnist
from idml_hf.data.readers.imagenet import read_imagenet
from idml_hf.data.readers.sop import read_sop

from .image_set import ImageSet


@dataclass(frozen=True)
class DatasetSpec:
    """How to get a data set, how to split it, and what must come out.

    Args:
        name: name in the registry.
        title: name in words.
        task: `retrieval` (train and test have different classes) or `classification` (they have the same).
        hub_id: data set on the Hub, or None.
        revision: commit of `hub_id`, or None if none is known to be right.
        hub_files: split -> files on the Hub, where a repository holds more than the data set.
        image_column, label_column, class_name_column, group_column: columns on the Hub and in parquet files.
        num_train_classes: the first so many classes train, the others test; None: the splits are used as they come.
        first_test_class: name of the first class that tests, to tell a copy whose classes are in another order.
        expected: split -> (images, classes) after splitting; other numbers are an error.
        reader: reads the layout of the authors below a folder into split -> images.
        layout: what `reader` looks for, in words.
        default_root: where the layout lies if it is installed, or None.
        embedded: folder in this package with `train.parquet` and `test.parquet`, or None.
    """

    name: str
    title: str
    expected: Mapping[str, tuple[int, int]]
    task: str = "retrieval"
    hub_id: str | None = None
    revision: str | None = None
    hub_files: Mapping[str, str] | None = None
    image_column: str | None = None
    label_column: str | None = None
    class_name_column: str | None = None
    group_column: str | None = None
    num_train_classes: int | None = None
    first_test_class: str | None = None
    reader: Callable[[Path], dict[str, ImageSet]] | None = None
    layout: str = "train.parquet and test.parquet"
    default_root: Path | None = None
    embedded: Path | None = None


_SPECS = (
    DatasetSpec(
        name="emoji-mini",
        title="Emoji across art styles, 48 px",
        expected={"train": (2300, 240), "test": (2279, 240)},
        class_name_column="name",
        group_column="family",
        embedded=Path(__file__).parent / "emoji_mini",
    ),
    DatasetSpec(
        name="emoji",
        title="Emoji across art styles, 64 px",
        expected={"train": (7518, 931), "test": (7462, 931)},
        class_name_column="name",
        group_column="family",
    ),
    DatasetSpec(
        name="cub",
        title="CUB-200-2011",
        expected={"train": (5864, 100), "test": (5924, 100)},
        hub_id="bentrevett/caltech-ucsd-birds-200-2011",
        num_train_classes=100,
        first_test_class="101.White_Pelican",
        reader=read_cub,
        layout="CUB_200_2011/images.txt, image_class_labels.txt, classes.txt and images/",
    ),
    DatasetSpec(
        name="cars",
        title="Cars196",
        expected={"train": (8054, 98), "test": (8131, 98)},
        hub_id="tanganke/stanford_cars",
        revision="9abf6cf7d6dfa7b95152a0d6e791ea9435b47a40",
        hub_files={"train": "data/train-*", "test": "data/test-*"},
        num_train_classes=98,
        reader=read_cars,
        layout="cars_annos.mat and car_ims/",
    ),
    DatasetSpec(
        name="sop",
        title="Stanford Online Products",
        expected={"train": (59551, 11318), "test": (60502, 11316)},
        hub_id="nyris/stanford-online-products-v1",
        revision="24a1b9b8ec6c0b1fc4dd324f24b2d829413a6c69",
        label_column="item_id",
        reader=read_sop,
        layout="Stanford_Online_Products/Ebay_train.txt, Ebay_test.txt and the image folders",
    ),
    DatasetSpec(
        name="imagenet",
        title="ImageNet-1k",
        task="classification",
        expected={"train": (1281167, 1000), "test": (50000, 1000)},
        hub_id="ILSVRC/imagenet-1k",
        revision="49e2ee26f3810fb5a7536bbf732a7b07389a47b5",
        reader=read_imagenet,
        layout="train/ and val/ with one folder a WordNet id",
    ),
    DatasetSpec(
        name="cifar10",
        title="CIFAR-10",
        task="classification",
        expected={"train": (50000, 10), "test": (10000, 10)},
        hub_id="uoft-cs/cifar10",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
        image_column="img",
        reader=read_cifar10,
        layout="cifar-10-batches-bin/ or cifar-10-batches-py/",
    ),
    DatasetSpec(
        name="cifar100",
        title="CIFAR-100",
        task="classification",
        expected={"train": (50000, 100), "test": (10000, 100)},
        hub_id="uoft-cs/cifar100",
        revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
        image_column="img",
        label_column="fine_label",
        reader=read_cifar100,
        layout="cifar-100-binary/ or cifar-100-python/",
    ),
    DatasetSpec(
        name="fashion-mnist",
        title="Fashion-MNIST",
        task="classification",
        expected={"train": (60000, 10), "test": (10000, 10)},
        hub_id="zalando-datasets/fashion_mnist",
        reader=read_fashion_mnist,
        layout="train-images-idx3-ubyte.gz and its three siblings",
        default_root=Path("/usr/share/datasets/fashion-mnist"),
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
