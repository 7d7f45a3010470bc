"""Classes are joined by name, rows keep their order through every view, and labels are never cast in silence."""

from __future__ import annotations

import dataset_replicas as replicas
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idml_hf.data import ImageSet, load_classification_data, load_images, load_retrieval_data
from idml_hf.data.image_set import concatenate
from idml_hf.data.tables import read_tables

NAMES = st.lists(st.sampled_from(["ant", "bee", "cat", "dog", "eel", "fox"]), min_size=1, max_size=6, unique=True)


def table(labels, feature, **more):
    """A table whose pictures hold their row in the size."""
    columns = {
        "image": [replicas.picture(0, (row + 1, 2)) for row in range(len(labels))],
        "label": list(labels),
        **more,
    }
    features = {"image": datasets.Image(), "label": feature, **{name: datasets.Value("string") for name in more}}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def named(images):
    return [images.class_names[label] for label in images.labels]


def rows(images):
    """Which rows of the table the images were."""
    return [images.image(i).width - 1 for i in range(len(images))]


def test_each_split_has_its_own_names(tmp_path):
    for split, names in (("train", ["ant", "bee"]), ("test", ["cat", "dog"])):
        table([0, 1, 1], datasets.ClassLabel(names=names)).to_parquet(str(tmp_path / f"{split}.parquet"))
    data = load_retrieval_data(tmp_path)
    assert named(data.train) == ["ant", "bee", "bee"] and named(data.test) == ["cat", "dog", "dog"]
    with pytest.raises(ValueError, match="2 of 2 test classes are not trained"):
        load_classification_data(tmp_path)


@given(NAMES, NAMES, st.data())
def test_names_are_joined_by_name_in_any_order(first, second, data):
    labels = {
        "train": data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=6)),
        "test": data.draw(st.lists(st.integers(0, len(second) - 1), min_size=1, max_size=6)),
    }
    names = {"train": first, "test": second}
    tables = {split: table(labels[split], datasets.ClassLabel(names=names[split])) for split in names}
    sets = read_tables(tables, "made")
    for split, images in sets.items():
        assert named(images) == [names[split][label] for label in labels[split]]
        assert images.original_labels.tolist() == labels[split]
    used = [{names[split][label] for label in labels[split]} for split in names]
    assert set(sets["train"].class_names) == used[0] | used[1]
    assert len(set(sets["train"].class_names)) == sets["train"].num_classes, "one class a name"


def test_classes_of_equal_splits_are_in_the_order_of_their_numbers():
    labels = datasets.ClassLabel(names=["zebra", "ant", "cow"])
    sets = read_tables({"train": table([2, 0], labels), "test": table([1, 2], labels)}, "made")
    assert sets["train"].class_names == ("zebra", "ant", "cow")
    numbers = read_tables({"train": table([10, 9], datasets.Value("int64"))}, "made")["train"]
    assert numbers.class_names == ("9", "10") and numbers.original_labels.tolist() == [10, 9]


def test_a_split_that_only_numbers_its_classes_is_refused():
    tables = {
        "train": table([0, 1], datasets.ClassLabel(names=["ant", "bee"])),
        "test": table([0], datasets.Value("int8")),
    }
    with pytest.raises(ValueError, match="test only numbers its classes, and the other splits name theirs"):
        read_tables(tables, "made")


def test_a_name_column_does_not_mix_equal_numbers():
    tables = {
        "train": table([0, 1], datasets.Value("int64"), name=["ant", "bee"]),
        "test": table([1, 2], datasets.Value("int64"), name=["cat", "bee"]),
    }
    sets = read_tables(tables, "made", class_name_column="name")
    assert named(sets["train"]) == ["ant", "bee"] and named(sets["test"]) == ["cat", "bee"]
    assert not set(sets["train"].labels) & set(sets["test"].labels), "other numbers are other classes"


@given(st.permutations(range(5)), st.sampled_from([None, "torch", "numpy", "arrow"]))
def test_a_table_seen_through_an_index(order, form):
    view = table(range(5), datasets.ClassLabel(names=list("abcde")), place=list("vwxyz")).select(order)
    view = view.with_format(form)
    for images in (
        load_images(view, group_column="place"),
        load_images(datasets.DatasetDict(train=view), group_column="place"),
    ):
        assert rows(images) == list(order) and named(images) == ["abcde"[row] for row in order]
        assert [images.group_names[group] for group in images.groups] == ["vwxyz"[row] for row in order]
        assert len(images.ids) == len(images) == 5
    some = load_images(view.filter(lambda row: int(row) in order[:2], input_columns="label").shuffle(seed=1))
    assert len(some.ids) == len(some) == 2 and named(some) == ["abcde"[row] for row in rows(some)]


def test_ids_of_a_view_are_those_of_its_rows(tmp_path):
    for i in range(4):
        replicas.save(tmp_path / f"{i}.png", i)
    files = [str(tmp_path / f"{i}.png") for i in range(4)]
    given_files = datasets.Dataset.from_dict({"image": files, "label": list("abcd")}).cast_column(
        "image", datasets.Image()
    )
    images = load_images(given_files.select([3, 1]))
    assert images.ids.to_pylist() == [files[3], files[1]]
    assert (np.asarray(images[0]) == np.asarray(replicas.picture(3))).all()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "uint64", "int8", "int32", "bool"])
def test_labels_of_every_integer_type(kind):
    labels = [False, True, True] if kind == "bool" else [5, 7, 7]
    images = load_images(table(labels, datasets.Value(kind)))
    assert images.labels.tolist() == [0, 1, 1] and images.labels.dtype == np.int64


def test_labels_that_are_no_classes_are_refused():
    for labels, feature, message in (
        ([0.5, 1.0], datasets.Value("float32"), "not integers or strings"),
        ([None, 1], datasets.Value("int64"), "row 0 has no 'label'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_images(table(labels, feature))
    huge = table([0, 1], datasets.Value("uint64")).data.table
    huge = huge.set_column(1, "label", pa.array([2**64 - 1, 1], pa.uint64()))
    with pytest.raises(ValueError, match="no 64-bit integers"):
        load_images(datasets.Dataset(huge))
    pixels = np.zeros((2, 2, 2), np.uint8)
    for labels in ([0.5, 1.0], [0], [0, 2], [0, -2], [[0], [1]], ["a", "b"], np.array([0, 2**63], np.uint64)):
        with pytest.raises(ValueError, match="labels must be"):
            ImageSet.from_arrays(pixels, labels, ["a", "b"], "made")


@pytest.mark.parametrize("kind", ["dictionary", "large string", "numbers in a dictionary"])
def test_columns_of_other_writers_are_names(kind, tmp_path):
    column = {
        "dictionary": pa.array(["bee", "ant", "bee"]).dictionary_encode(),
        "large string": pa.array(["bee", "ant", "bee"], pa.large_string()),
        "numbers in a dictionary": pa.array([9, 7, 9]).dictionary_encode(),
    }[kind]
    source = table(["x"] * 3, datasets.Value("string")).data.table
    pq.write_table(source.set_column(1, "label", column).replace_schema_metadata(None), tmp_path / "train.parquet")
    assert named(load_images(tmp_path)) == [str(value) for value in column.to_pylist()]


def test_label_and_image_columns_by_type():
    features = {
        "photo": datasets.Image(),
        "species": datasets.ClassLabel(names=["ant", "bee"]),
        "age": datasets.Value("int64"),
    }
    columns = {"photo": [replicas.picture(i) for i in range(2)], "species": [1, 0], "age": [3, 4]}
    source = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    assert named(load_images(source)) == ["bee", "ant"]
    assert load_images(source, label_column="age").class_names == ("3", "4")


def test_a_table_without_labels_has_no_classes(caplog):
    images = load_images(table([0], datasets.Value("int64")).remove_columns("label"))
    assert images.labels.tolist() == [-1] and "has no column 'label'" in caplog.text


@given(NAMES, NAMES)
def test_joining_never_renames_an_image(first, second):
    def make(names):
        return ImageSet.from_arrays(np.zeros((len(names), 2, 2), np.uint8), range(len(names)), names, "made")

    assert named(concatenate(make(first), make(second))) == [*first, *second]
    twice = [*first, first[0]]
    both = concatenate(make(twice), make(second))
    assert named(both) == [*twice, *second]
    assert both.labels[: len(twice)].tolist() == list(range(len(twice))), (
        "classes of one name stay apart where they were"
    )
    assert named(concatenate(make(second), make(twice))) == [*second, *twice]


@given(st.lists(st.integers(-4, 3), max_size=6))
def test_selection_by_every_kind_of_index(chosen):
    images = ImageSet.from_arrays(
        np.arange(4, dtype=np.uint8)[:, None, None] + np.zeros((2, 2), np.uint8), [0] * 4, ["a"], "m"
    )
    expected = [range(4)[i] for i in chosen]
    for indices in (chosen, np.array(chosen, np.int8), np.array(chosen, np.int64)):
        assert [int(images.select(indices).tensor(i)[0, 0, 0]) for i in range(len(chosen))] == expected
    assert len(images.select(slice(1, 3))) == 2 and len(images.select(np.array([2, 0], np.uint64))) == 2
    for wrong in ([4], [-5], [0.5], [True], np.ones(5, bool), ["0"]):
        with pytest.raises(IndexError):
            images.select(wrong)
