"""`as_image_set`: whatever a user has of images gives the same pixels."""

from __future__ import annotations

import dataset_replicas as replicas
import datasets
import numpy as np
import pytest
import torch

from idml_hf.data import UnreadableImageError, as_image_set, load_images
from idml_hf.data.eval_images import EvalImages
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.index import IDMLIndex
from idml_hf.modeling_idml import IDMLModel

PICTURE = replicas.picture(3)
PIXELS = np.asarray(PICTURE)


def kinds(folder):
    path = replicas.save(folder / "a.png", 3)
    chw = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)
    return {
        "text": str(path),
        "path": path,
        "bytes": path.read_bytes(),
        "PIL": PICTURE,
        "array": PIXELS,
        "array, channels first": PIXELS.transpose(2, 0, 1),
        "reversed strides": PIXELS[::-1][::-1],
        "big endian": (PIXELS.astype(">u2") << 8) | PIXELS,
        "fractions": PIXELS / 255,
        "half fractions": torch.from_numpy(PIXELS / 255).permute(2, 0, 1).to(torch.float32),
        "tensor": chw,
        "tensor that needs grad": (chw / 255).requires_grad_(),
        "opaque": np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)]),
    }


def test_every_kind_of_picture_alone_in_a_list_and_mixed(tmp_path):
    given = kinds(tmp_path)
    for name, item in given.items():
        for images in (as_image_set(item), as_image_set([item])):
            assert len(images) == 1 and (np.asarray(images[0]) == PIXELS).all(), name
            assert (images.tensor(0).permute(1, 2, 0).numpy() == PIXELS).all(), name
    mixed = as_image_set(item for item in given.values())
    assert len(mixed) == len(given) and all((np.asarray(picture) == PIXELS).all() for picture in mixed)
    assert mixed.image_id(0) == str(tmp_path / "a.png") and mixed.image_id(3) == "image 3"
    assert as_image_set([given["path"]]).paths == [str(tmp_path / "a.png")] and mixed.paths is None
    assert as_image_set(mixed) is mixed


def test_batches_of_arrays_and_of_tensors():
    batch = np.stack([PIXELS, 255 - PIXELS])
    for images in (as_image_set(batch), as_image_set(torch.from_numpy(batch).permute(0, 3, 1, 2))):
        assert [(np.asarray(picture) == expected).all() for picture, expected in zip(images, batch, strict=True)] == [
            True
        ] * 2
    grey = as_image_set([PIXELS[..., 0], torch.from_numpy(PIXELS[..., 0].copy())[None]])
    assert all((np.asarray(picture) == PIXELS[..., :1]).all() for picture in grey)


@pytest.mark.parametrize("form", [None, "torch", "numpy", "arrow"])
def test_tables_of_every_format(form):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    table = datasets.Dataset.from_dict({"image": [PICTURE] * 3, "label": [0, 1, 1]}, features=features)
    for given in (
        table.with_format(form),
        table.to_iterable_dataset(),
        datasets.DatasetDict(all=table.with_format(form)),
    ):
        images = as_image_set(given)
        assert (images.class_names, images.labels.tolist()) == (("ant", "bee"), [0, 1, 1])
        assert (np.asarray(images[2]) == PIXELS).all()
    splits = datasets.DatasetDict(training=table.with_format(form), Dev=table.select([1]))
    assert len(as_image_set(splits)) == 1 and len(as_image_set(splits, split="train")) == 3
    with pytest.raises(ValueError, match="has no split train, validation or test; its splits: a, b"):
        as_image_set(datasets.DatasetDict(a=table, b=table))


def test_streams_without_features():
    stream = datasets.IterableDataset.from_generator(lambda: iter([{"image": PICTURE, "label": "x"}] * 2))
    images = as_image_set(stream)
    assert images.class_names == ("x",) and (np.asarray(images[1]) == PIXELS).all()


def test_names_and_folders_are_data_sets(tmp_path):
    replicas.save(tmp_path / "ant" / "0.png", 3)
    assert as_image_set(tmp_path).class_names == as_image_set(str(tmp_path)).class_names == ("ant",)
    assert len(as_image_set("emoji-mini", split="train")) == len(load_images("emoji-mini", "train")) == 2300


def test_labels_by_number_and_by_name():
    pictures = [PICTURE] * 3
    assert as_image_set(pictures).labels.tolist() == [-1, -1, -1]
    images = as_image_set(pictures, ["dog", "cat", "dog"])
    assert (images.class_names, images.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    images = as_image_set(pictures, np.array([7, -1, 9], np.int16))
    assert (images.class_names, images.labels.tolist()) == (("7", "9"), [0, -1, 1])
    images = as_image_set(pictures, [1, 0, -1], ["ant", "bee"])
    assert (images.class_names, images.labels.tolist()) == (("ant", "bee"), [1, 0, -1])
    for labels in ([0, 1], [0, 1, 2], [0.5, 0, 1]):
        with pytest.raises(ValueError, match="labels"):
            as_image_set(pictures, labels, ["ant", "bee"])


def test_what_is_no_image_is_named_by_its_place(tmp_path):
    cases = [
        ([PICTURE, None], TypeError, "image 1 is a NoneType"),
        (7, TypeError, "expected images or their paths, got int"),
        ([PICTURE, tmp_path / "nowhere.png"], FileNotFoundError, "there is no image .*nowhere.png"),
        ([np.zeros((2, 2, 7))], ValueError, "image 0: a picture has the shape"),
        ([np.zeros((0, 2, 3))], ValueError, "image 0: a picture has the shape"),
        ([np.full((2, 2), -1.5)], ValueError, "image 0: pixel values from -1.5"),
        ([np.full((2, 2), np.nan)], ValueError, "image 0: pixel values from nan"),
        ([np.full((2, 2), 70_000)], ValueError, "image 0: pixel values from 70000"),
        ([np.array([["a"]])], ValueError, "image 0: pixels must be numbers"),
    ]
    for images, error, message in cases:
        with pytest.raises(error, match=message):
            as_image_set(images)
    with pytest.raises(UnreadableImageError, match="image 0 is not an image in a known format"):
        as_image_set([b"no image"]).image(0)


def test_the_processor_takes_them_all(tmp_path):
    processor = IDMLImageProcessor(size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8})
    prepared = EvalImages(as_image_set(kinds(tmp_path).values()), processor)
    values = torch.stack([sample["pixel_values"] for sample in prepared.__getitems__(list(range(len(prepared))))])
    assert torch.equal(values, values[:1].expand_as(values))
    table = datasets.Dataset.from_dict({"image": [PICTURE, PICTURE], "label": ["a", "b"]})
    for given in (
        table,
        table.to_iterable_dataset(),
        list(kinds(tmp_path).values()),
        [PICTURE],
        PIXELS,
        str(tmp_path),
    ):
        prepared = EvalImages(given, processor)
        assert torch.equal(prepared[len(prepared) - 1]["pixel_values"], values[0])
    assert EvalImages(table, processor).labels.tolist() == [0, 1]


def test_an_index_is_built_from_a_table_and_asked_with_one():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    pictures = [replicas.picture(seed, (32, 32)) for seed in range(4)]
    table = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 1, 0]}, features=features)
    model = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=8)
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=32)
    for given in (table.shuffle(seed=3).with_format("torch"), table.to_iterable_dataset()):
        index = IDMLIndex.build(model, given, processor, progress=False)
        found = index.search(table.select([2, 0]), k=1)
        assert found.names[:, 0].tolist() == ["bee", "ant"] and found.scores.min() > 0.9999
