"""The data sets known by name: where they are, how they split, how many images must come out, and their licences.

A pinned revision is one at which independent public projects have recorded the schema and counts below. Where none is
known, `revision` is None and the newest one is read: the counts then are the only guard.
"""

from __future__ import annotations

from pathlib import Path

from .dataset_spec import UNKNOWN_LICENCE, DataLicence, DatasetSpec
from .readers.cars import read_cars
from .readers.cifar import read_cifar10, read_cifar100
from .readers.cub import read_cub
from .readers.fashion_mnist import read_fashion_mnist
from .readers.imagenet import read_imagenet
from .readers.sop import read_sop

_EMBEDDED = Path(__file__).parent / "emoji_mini"
_EMOJI_LICENCE = DataLicence(
    "Published emoji artwork, each picture under the licence of its set: Apache-2.0, MIT, CC-BY-4.0 or CC-BY-SA-4.0. "
    "The model is offered under the strictest of them, CC-BY-SA-4.0, as are the pictures on this page.",
    model_licence="cc-by-sa-4.0",
    attribution_file=_EMBEDDED / "README.md",
)
_CIFAR_LICENCE = DataLicence("The authors state no licence; they ask that their report be cited.")

_SPECS = (
    DatasetSpec(
        name="emoji-mini",
        title="Emoji across art styles, 48 px",
        expected={"train": (2300, 240), "test": (2279, 240)},
        class_name_column="name",
        group_column="family",
        embedded=_EMBEDDED,
        licence=_EMOJI_LICENCE,
    ),
    DatasetSpec(
        name="emoji",
        title="Emoji across art styles, 64 px",
        expected={"train": (7518, 931), "test": (7462, 931)},
        class_name_column="name",
        group_column="family",
        licence=_EMOJI_LICENCE,
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
        licence=DataLicence(
            "Photographs from Flickr whose copyright stays with the photographers; the authors give the data set for "
            "non-commercial research and education."
        ),
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
        licence=DataLicence("The terms of access to ImageNet allow non-commercial research and education."),
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
        licence=_CIFAR_LICENCE,
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
        licence=_CIFAR_LICENCE,
    ),
    DatasetSpec(
        name="fashion-mnist",
        title="Fashion-MNIST",
        task="classification",
        expected={"train": (60000, 10), "test": (10000, 10)},
        hub_id="zalando-datasets/fashion_mnist",
        reader=read_fashion_mnist,
        layout="train-images-idx3-ubyte.gz and its three siblings",
        system_folder="datasets/fashion-mnist",
        licence=DataLicence("Fashion-MNIST by Zalando SE, MIT."),
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}


def data_licence(dataset: str | None) -> DataLicence:
    """The terms of a data set known by name, else `UNKNOWN_LICENCE`."""
    spec = DATASETS.get(dataset or "")
    return UNKNOWN_LICENCE if spec is None else spec.licence
