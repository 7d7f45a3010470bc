"""`ImageSet` and class splits: numbering, selection, joining; property tests of the split rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idml_hf.data import ImageSet
from idml_hf.data.image_set import concatenate
from idml_hf.data.splits import hold_out_classes, hold_out_images, split_by_class

LABELS = st.lists(st.integers(0, 7), min_size=2, max_size=40)


def make(labels, num_classes=8, start=0):
    """Images whose pixels hold their own number."""
    pixels = np.arange(start, start + len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), dtype=np.uint8)
    return ImageSet.from_arrays(pixels, labels, [f"class {label}" for label in range(num_classes)], "made")


def numbers(images):
    """The numbers that the pixels hold."""
    return [int(images.tensor(i)[0, 0, 0]) for i in range(len(images))]


def names(images):
    return [images.class_names[label] for label in images.labels]


@given(LABELS, st.data())
def test_select_keeps_image_label_and_id_together(labels, data):
    images = make(labels)
    chosen = data.draw(st.lists(st.integers(0, len(labels) - 1), max_size=10))
    some = images.select(chosen)
    assert numbers(some) == chosen
    assert names(some) == [f"class {labels[i]}" for i in chosen]
    assert [some.image_id(i) for i in range(len(some))] == [f"made row {i}" for i in chosen]
    again = some.renumbered()
    assert names(again) == names(some) and set(again.labels) == set(range(again.num_classes))
    assert again.original_labels.tolist() == some.original_labels.tolist()


@given(LABELS)
def test_split_by_class_is_disjoint_and_whole(labels):
    images = make(labels).renumbered()
    if images.num_classes < 2:
        with pytest.raises(ValueError, match="cannot be split"):
            split_by_class(images)
        return
    train, test = split_by_class(images)
    assert train.num_classes == images.num_classes // 2
    assert [*train.class_names, *test.class_names] == list(images.class_names)
    assert sorted(numbers(train) + numbers(test)) == list(range(len(labels)))
    assert names(train) + names(test) == [f"class {labels[i]}" for i in numbers(train) + numbers(test)]


@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 3))
def test_held_out_classes_are_whole_and_repeatable(labels, fraction, seed):
    images = make(labels).renumbered()
    if images.num_classes < 2:
        return
    train, validation = hold_out_classes(images, fraction, seed)
    assert set(train.class_names).isdisjoint(validation.class_names)
    assert validation.num_classes == min(max(1, round(fraction * images.num_classes)), images.num_classes - 1)
    assert sorted(numbers(train) + numbers(validation)) == list(range(len(labels)))
    assert hold_out_classes(images, fraction, seed)[1].class_names == validation.class_names


@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 3))
def test_held_out_images_are_the_same_share_of_each_class(labels, fraction, seed):
    rest, held = hold_out_images(make(labels), fraction, seed)
    assert sorted(numbers(rest) + numbers(held)) == list(range(len(labels)))
    for label, total in zip(*np.unique(labels, return_counts=True), strict=True):
        assert (held.labels == label).sum() == min(round(fraction * total), total - 1)
    assert numbers(held) == sorted(numbers(held))
    assert numbers(hold_out_images(make(labels), fraction, seed)[1]) == numbers(held)


def test_concatenate_merges_classes_and_groups_by_name():
    first = make([0, 1], 2).grouped(["x", "y"], "camera")
    second = ImageSet.from_arrays(np.full((3, 2, 2), 9, np.uint8), [0, 1, -1], ["class 1", "new"], "other")
    both = concatenate(first, second.grouped(["y", "z", "z"], "camera"))
    assert both.class_names == ("class 0", "class 1", "new")
    assert both.labels.tolist() == [0, 1, 1, 2, -1]
    assert [both.group_names[group] for group in both.groups] == ["x", "y", "y", "z", "z"]
    assert numbers(both) == [0, 1, 9, 9, 9]
    assert concatenate(first, second).groups is None


def test_masks_select_too():
    assert numbers(make([0, 1, 2]).select(np.array([True, False, True]))) == [0, 2]


def test_iteration_gives_pictures():
    assert [picture.size for picture in make([0, 0])] == [(2, 2), (2, 2)]
