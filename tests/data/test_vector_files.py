"""Embeddings in files: read by block and by row, and refused with the name of what does not fit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idml_hf.data import RowFiles, load_vectors, row_blocks


def write(path, embedding, **columns):
    if isinstance(embedding, np.ndarray):
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(embedding.reshape(-1)), embedding.shape[1])
    pq.write_table(pa.table({"embedding": embedding, **columns}), path, row_group_size=3)
    return path


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any), st.data())
def test_rows_are_those_of_the_whole_matrix(tmp_path_factory, sizes, data):
    folder = tmp_path_factory.mktemp("rows")
    whole = np.random.default_rng(0).normal(size=(sum(sizes), 3)).astype(np.float16)
    ends = np.cumsum(sizes)
    files = [folder / f"{i}.npy" for i in range(len(sizes))]
    for file, end, size in zip(files, ends, sizes, strict=True):
        np.save(file, whole[end - size : end])
    rows = RowFiles(files)
    assert rows.shape == whole.shape
    number = st.integers(0, len(whole) - 1)
    start, stop, step = data.draw(number), data.draw(st.integers(0, len(whole) + 2)), data.draw(st.integers(1, 3))
    assert np.array_equal(rows[start:stop:step], whole[start:stop:step])
    some = np.array(data.draw(st.lists(number, max_size=8)), dtype=int)
    assert np.array_equal(rows[some], whole[some])
    assert np.array_equal(rows.select(some)[1:4], whole[some][1:4])
    assert np.array_equal(np.concatenate(list(row_blocks(rows, 4))), whole.astype(np.float32))


@pytest.mark.parametrize("kind", ["fixed", "lists", "half", "double"])
def test_every_kind_of_list_gives_the_same_vectors(tmp_path, kind):
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float16).astype(np.float32)
    column = {
        "fixed": x,
        "lists": pa.array(x.tolist()),
        "half": x.astype(np.float16),
        "double": x.astype(np.float64),
    }[kind]
    labels = pa.array([5, 5, None, 7, 7, -1, 9, 9, 9, 5])
    found = load_vectors(write(tmp_path / "x.parquet", column, label=labels))["all"]
    assert np.array_equal(found.vectors[:], x)
    assert found.class_names == ("5", "7", "9")
    assert found.labels.tolist() == [0, 0, -1, 1, 1, -1, 2, 2, 2, 0]
    assert found.ids.to_pylist() == [str(row) for row in range(10)]


def test_labels_groups_and_names_are_read(tmp_path):
    x = np.eye(4, dtype=np.float32)
    columns = {"label": ["cat", "dog", "", "cat"], "shop": ["B", "A", "B", None], "image": ["a", "b", "c", "d"]}
    found = load_vectors(write(tmp_path / "x.parquet", x, **columns), group_column="shop")["all"]
    assert found.class_names == ("cat", "dog") and found.labels.tolist() == [0, 1, -1, 0]
    assert found.groups.tolist() == [2, 1, 2, 0] and found.group_column == "shop"
    assert found.ids.to_pylist() == ["a", "b", "c", "d"]
    assert found.select([3, 0]).renumbered().class_names == ("cat",)
    # as `embed` writes them: a number and a name
    named = write(tmp_path / "y.parquet", x, **{"label": [3, -1, 1, 3], "class": ["z", "", "y", "z"]})
    assert load_vectors(named)["all"].class_names == ("y", "z")
    assert load_vectors(named)["all"].labels.tolist() == [1, -1, 0, 1]


def test_splits_and_matrices(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", np.eye(3, dtype=np.float32), label=[0, 0, 1])
    assert list(load_vectors(tmp_path)) == ["train", "test"]
    np.save(tmp_path / "x.npy", np.eye(3))
    np.save(tmp_path / "y.npy", np.array(["b", "a", "b"]))
    found = load_vectors(tmp_path / "x.npy", tmp_path / "y.npy")["all"]
    assert found.class_names == ("a", "b") and found.labels.tolist() == [1, 0, 1]
    assert load_vectors(tmp_path / "x.npy")["all"].num_classes == 0


def test_what_does_not_fit_is_named(tmp_path):
    x = np.eye(4, dtype=np.float32)
    bad = x.copy()
    bad[2, 1] = np.nan
    wrong = {
        "row 2 has NaN or infinite": write(tmp_path / "nan.parquet", bad),
        "row 1 is missing, or not as long": write(tmp_path / "ragged.parquet", pa.array([[1.0, 2.0], [1.0]])),
        "row 1 is missing": write(tmp_path / "null.parquet", pa.array([[1.0, 2.0], None])),
        "must hold lists of numbers, not double": write(tmp_path / "flat.parquet", pa.array([1.0, 2.0])),
        "must hold integers or texts, not double": write(tmp_path / "half.parquet", x, label=[0.5, 1, 1, 1]),
        "has no rows": write(tmp_path / "none.parquet", x[:0]),
    }
    for message, path in wrong.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_vectors(path)
        assert path.name in str(caught.value)
    pq.write_table(pa.table({"vector": [1], "label": [2]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet has no column 'embedding'; it has vector, label"):
        load_vectors(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"nan\.parquet has no column 'shop'"):
        load_vectors(tmp_path / "nan.parquet", group_column="shop")
    (tmp_path / "text.parquet").write_text("none")
    with pytest.raises(ValueError, match=r"text\.parquet cannot be read as parquet"):
        load_vectors(tmp_path / "text.parquet")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.zeros(3))
    np.save(tmp_path / "ids.npy", np.arange(4))
    with pytest.raises(ValueError, match=r"y\.npy must hold 4 integers or texts"):
        load_vectors(tmp_path / "x.npy", tmp_path / "y.npy")
    with pytest.raises(ValueError, match=r"ids\.npy must hold one matrix of floats"):
        load_vectors(tmp_path / "ids.npy")
    for missing in ("gone.npy", "gone.parquet"):
        with pytest.raises(FileNotFoundError, match=missing):
            load_vectors(tmp_path / missing)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy is no matrix that NumPy saved"):
        load_vectors(tmp_path / "objects.npy")
