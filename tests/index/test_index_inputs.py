"""Ids, labels, names, paths and metadata: nothing is cut, cast or renamed on the way in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idml_hf import IDMLIndex
from idml_hf.index.classes import join_classes
from idml_hf.index.gallery import Gallery

ROWS = np.random.default_rng(0).standard_normal((6, 4))
LABELS = [0, 1, 0, 1, 2, -1]
HUGE = np.arange(6, dtype=np.uint64) + np.uint64(2**63)


def an_index(**columns: Any) -> IDMLIndex:
    columns = {"labels": LABELS, "class_names": ["a", "b", "c"], "ids": [5, 1, 9, 2, 0, 7]} | columns
    columns.setdefault("paths", [f"photos/{i}.png" for i in range(6)])
    return IDMLIndex.from_embeddings(ROWS, np.abs(ROWS), **columns)


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ([5, 9], [1, 2, 0, 7]),
        (7, [5, 1, 9, 2, 0]),
        (np.int64(7), [5, 1, 9, 2, 0]),
        (np.array([7], np.uint8), [5, 1, 9, 2, 0]),
        (np.array([7], ">i8"), [5, 1, 9, 2, 0]),
        (torch.tensor([7, 0]), [5, 1, 9, 2]),
        (range(3), [5, 9, 7]),
        (np.array([7, 0], object), [5, 1, 9, 2]),
        (np.array(["photos/5.png"], object), [5, 1, 9, 2, 0]),
        (pa.array(["photos/5.png"]), [5, 1, 9, 2, 0]),
        (pa.array([7, 0]), [5, 1, 9, 2]),
        ({1, 2}, [5, 9, 0, 7]),
        ([7, 7], [5, 1, 9, 2, 0]),
        ([], [5, 1, 9, 2, 0, 7]),
        (np.array([True, False, False, True, False, False]), [1, 9, 0, 7]),
        ([False] * 5 + [True], [5, 1, 9, 2, 0]),
        (torch.tensor([True] + [False] * 5), [1, 9, 2, 0, 7]),
        (np.zeros(6, bool), [5, 1, 9, 2, 0, 7]),
        ("photos/1.png", [5, 9, 2, 0, 7]),
        (Path("photos/1.png"), [5, 9, 2, 0, 7]),
        (["photos/0.png", Path("photos/5.png")], [1, 9, 2, 0]),
        (np.array(["photos/0.png"]), [1, 9, 2, 0, 7]),
        (["photos/../photos/./1.png"][:0], [5, 1, 9, 2, 0, 7]),
        (str(Path("photos/1.png").absolute()), [5, 9, 2, 0, 7]),
    ],
    ids=str,
)
def test_what_is_removed_is_what_is_meant(gone: Any, left: list[int]) -> None:
    index = an_index()
    index.remove(gone)
    assert index.gallery.ids.tolist() == left


@pytest.mark.parametrize(
    ("gone", "error", "message"),
    [
        (np.ma.array([7, 0], mask=[False, True]), ValueError, "ids have masked values"),
        ([1.0], ValueError, "ids must be integers, got float64"),
        ([1.5], ValueError, "ids must be integers"),
        (np.array([2**63], np.uint64), ValueError, "at most 64 bits with a sign"),
        ([2**70], ValueError, "at most 64 bits with a sign"),
        ([None], ValueError, "ids must be integers, got objects"),
        ([True, False], ValueError, r"one value an image: 6, got \(2,\)"),
        (True, ValueError, "one value an image"),
        ([1, "photos/1.png"], ValueError, "ids and paths cannot be mixed"),
        ([[1], [2]], ValueError, "ids must be integers"),
        ([3], KeyError, "no image with id 3"),
        (["1"], KeyError, "no image with path 1"),
        (None, ValueError, "give either ids"),
    ],
    ids=str,
)
def test_what_is_no_id_is_said_and_nothing_removed(gone: Any, error: type[Exception], message: str) -> None:
    index = an_index()
    with pytest.raises(error, match=message):
        index.remove(gone)
    assert len(index) == 6


def test_a_class_is_removed_by_its_name() -> None:
    index = an_index()
    index.remove(class_name="b")
    assert index.gallery.ids.tolist() == [5, 9, 0, 7]
    with pytest.raises(KeyError, match="no image of class b"):
        index.remove(class_name="b")
    numbers = an_index(class_names=())
    numbers.remove(class_name="1")
    assert numbers.gallery.ids.tolist() == [5, 9, 0, 7]
    with pytest.raises(KeyError, match="no image of class -1"):
        numbers.remove(class_name="-1")


@pytest.mark.parametrize("column", ["labels", "ids"])
@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1, 2, 3, 4, 5],
        [True] * 6,
        list("012345"),
        [None] * 6,
        HUGE,
        [[0]] * 6,
        [0] * 5,
        [0.5] * 6,
    ],
    ids=str,
)
def test_no_label_and_no_id_is_cast(column: str, values: Any) -> None:
    with pytest.raises(ValueError, match=f"{column} must be 6 integers"):
        an_index(**{column: values})


@pytest.mark.parametrize("kind", [np.uint8, np.int16, ">i4", np.uint64, torch.tensor])
def test_labels_of_all_integer_types(kind: Any) -> None:
    labels = [3, 1, 3, 1, 2, 0]
    index = an_index(labels=torch.tensor(labels) if kind is torch.tensor else np.array(labels, kind), class_names=())
    assert index.gallery.labels.tolist() == labels and index.gallery.labels.dtype == np.int64
    assert index.gallery.name_of(3) == "3"


def test_class_names_that_are_not_different_are_refused() -> None:
    with pytest.raises(ValueError, match="class names must be different from each other: 'a' is there twice"):
        an_index(class_names=["a", "b", "a"])


def test_old_images_keep_their_names_whatever_is_added(tmp_path: Path) -> None:
    index = an_index()
    before = [index.gallery.name_of(label) for label in index.gallery.labels]
    for names in (["c", "z", "a"], ["z", "y"], ["b"]):
        index.add_embeddings(
            ROWS[: len(names)], np.abs(ROWS[: len(names)]), labels=range(len(names)), class_names=names
        )
        assert [index.gallery.name_of(label) for label in index.gallery.labels[:6]] == before
        assert [index.gallery.name_of(label) for label in index.gallery.labels[-len(names) :]] == names
    index.add_embeddings(ROWS[:1], np.abs(ROWS[:1]))
    assert index.gallery.name_of(index.gallery.labels[-1]) == ""


def test_names_that_an_earlier_version_saved_twice_become_one() -> None:
    index = an_index()
    arrays, items = index.gallery.arrays(), index.gallery.table()
    restored = Gallery.restore(arrays, items, ["a", "b", "a"])
    assert restored.class_names == ("a", "b") and restored.labels.tolist() == [0, 1, 0, 1, 0, -1]
    more = restored.concatenate(
        Gallery.create(ROWS, np.abs(ROWS), first_id=50, labels=[1] * 6, class_names=["c", "b"])
    )
    assert [more.name_of(label) for label in more.labels[:5]] == ["a", "b", "a", "b", "a"]
    assert {more.name_of(label) for label in more.labels[6:]} == {"b"}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    names=st.lists(st.sampled_from("abcdef"), unique=True),
    new_names=st.lists(st.sampled_from("abcdef"), unique=True),
    data=st.data(),
)
def test_joining_classes_keeps_every_name(names: list[str], new_names: list[str], data: Any) -> None:
    labels = data.draw(st.lists(st.integers(-1, len(names) - 1 if names else 3), max_size=5))
    new_labels = np.array(
        data.draw(st.lists(st.integers(-1, len(new_names) - 1 if new_names else 3), max_size=5)), int
    )

    def called(label: int, among: tuple[str, ...] | list[str]) -> str:
        return "" if label < 0 else (among[label] if among else f"number {label}")

    labelled = any(label >= 0 for label in labels)
    try:
        joined, renumbered = join_classes(tuple(names), labelled, tuple(new_names), new_labels)
    except ValueError as error:
        assert "names" in str(error) and labelled and bool(names) != bool(new_names)
        return
    assert [called(label, joined) for label in labels] == [called(label, names) for label in labels]
    assert [called(label, joined) for label in renumbered] == [called(label, new_names) for label in new_labels]


def test_all_exact_copies_are_pairs_at_a_threshold_of_1() -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((40, 96)) * random.uniform(1e-3, 1e3, (40, 1))
    copies = np.concatenate([rows, rows, 3 * rows, 1e-30 * rows])
    for engine in ("flat", "ivf"):
        index = IDMLIndex.from_embeddings(copies)
        if engine == "ivf":
            pytest.importorskip("faiss")
            index.use_engine("ivf", nprobe=1000)
        found = index.near_duplicates(threshold=1.0)
        assert len(found) == 40 * 6 and (found.scores == 1).all()
        assert (found.ids[:, 0] % 40 == found.ids[:, 1] % 40).all()
    for arguments in ({"threshold": 1.01}, {"threshold": float("nan")}, {"max_pairs": 0}, {"max_pairs": 2.5}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            index.near_duplicates(**arguments)


@pytest.mark.parametrize("engine", ["flat", "ivf", "hnsw"])
def test_no_queries_have_no_matches(engine: str) -> None:
    index = an_index()
    if engine != "flat":
        pytest.importorskip("faiss")
        index.use_engine(engine)
    for metric in ("cosine", "introspective"):
        found = index.search_embeddings(np.empty((0, 4)), k=np.int64(3), metric=metric)
        assert found.ids.shape == found.names.shape == (0, 3) and found.to_dicts() == []
        assert index.search_embeddings(ROWS[:2], k=np.uint8(3), metric=metric).ids.shape == (2, 3)
        nothing, zero = (index.search_embeddings(ROWS[:2], u, metric=metric) for u in (None, np.zeros((2, 4))))
        assert nothing.ids.tolist() == zero.ids.tolist() and nothing.scores.tolist() == zero.scores.tolist()
    for k in (0, -1, 1.5, True, None, "3"):
        with pytest.raises(ValueError, match="k must be"):
            index.search_embeddings(ROWS, k=k)


def test_an_index_of_tensors_of_all_kinds() -> None:
    expected = an_index().search_embeddings(ROWS, np.abs(ROWS), k=3).ids.tolist()
    for make in (
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x).bfloat16().double().numpy().astype(">f8"),
        lambda x: np.ascontiguousarray(x[::-1])[::-1],
        np.asfortranarray,
    ):
        index = IDMLIndex.from_embeddings(make(ROWS), make(np.abs(ROWS)), ids=[5, 1, 9, 2, 0, 7])
        assert index.search_embeddings(make(ROWS), make(np.abs(ROWS)), k=3).ids.tolist() == expected
    for tau in (0, -1, float("nan"), float("inf"), "x"):
        with pytest.raises(ValueError, match="tau must be"):
            IDMLIndex.from_embeddings(ROWS, tau=tau)


def test_metadata_is_kept_shown_and_searched_by(tmp_path: Path) -> None:
    metadata = {
        "shop": ["A", "B", "A", None, "B", "A"],
        "price": [1, 2.5, 3, None, 5, 6],
        "stock": np.arange(6),
        "new": [True, False, True, False, True, None],
    }
    index = an_index(metadata=metadata)
    index.add_embeddings(ROWS[:1], np.abs(ROWS[:1]), metadata={"shop": ["C"], "colour": ["red"]})
    index.save(tmp_path)
    index = IDMLIndex.load(tmp_path)
    whole = index.search_embeddings(ROWS[:1], k=7)
    match = next(match for match in whole.to_dicts()[0]["matches"] if match["id"] == 9)
    assert match["metadata"] == {"shop": "A", "price": 3.0, "stock": 2, "new": True, "colour": None}

    def ids(**where: Any) -> set[int]:
        return set(index.search_embeddings(ROWS[:1], k=7, where=where).ids[0].tolist())

    assert ids(shop="A") == {5, 9, 7}
    assert ids(shop=["B", "C"]) == {1, 0, 10}
    assert ids(shop="A", price=3) == {9}
    assert ids(shop=None) == {2}
    assert ids(new=False) == {1, 2} and ids(stock=np.int64(4)) == {0} and ids(price=[1, 6.0]) == {5, 7}
    assert ids(**{"class": "a"}) == {5, 9} and ids(**{"class": None}) == {7, 10}
    index.use_engine("flat")
    order = [i for i in whole.ids[0].tolist() if i in {5, 9, 7}]
    assert index.search_embeddings(ROWS[:1], k=7, where={"shop": "A"}).ids[0].tolist() == order
    for where, message in (
        ({"town": "A"}, "no metadata column 'town': it has shop, price"),
        ({"shop": 3}, "'shop' holds string, not int64"),
        ({"price": "3"}, "'price' holds double, not string"),
        ({"shop": "Z"}, "no image where"),
        ("shop", "where takes columns"),
        ({"shop": object()}, "must hold numbers, texts"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search_embeddings(ROWS[:1], where=where)
    for metadata, message in (
        ({"shop": ["A"]}, "'shop' has 1 values for 6 images"),
        ({"shop": [1, "A", 2, 3, 4, 5]}, "'shop' must hold"),
        ({"shop": [[1]] * 6}, "'shop' must hold"),
        ({3: [1] * 6}, "named by texts"),
    ):
        with pytest.raises(ValueError, match=message):
            an_index(metadata=metadata)
    with pytest.raises(ValueError, match="'shop' holds int64 here, but string in the index"):
        index.add_embeddings(ROWS[:1], np.abs(ROWS[:1]), metadata={"shop": [1]})
    assert len(index) == 7


def test_another_index_is_replaced_only_if_it_may_be(tmp_path: Path) -> None:
    an_index().save(tmp_path, overwrite=False)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match="holds an index already: give overwrite=True"):
        an_index().save(tmp_path, overwrite=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    loaded = IDMLIndex.load(tmp_path)
    loaded.remove(5)
    loaded.save(tmp_path, overwrite=False)  # its own
    assert len(IDMLIndex.load(tmp_path)) == 5
    an_index().save(tmp_path)
    assert len(IDMLIndex.load(tmp_path)) == 6
