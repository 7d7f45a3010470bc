import numpy as np
import pytest
from collections_with_faults import clusters, mislabelled
from sklearn.metrics import roc_auc_score

from idml_hf.audit import cross_fit, expected_precision


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_wrong_labels_come_first_with_the_right_suggestion(share):
    x, truth = clusters()
    given = mislabelled(truth, share)
    scores = cross_fit(x, given)
    wrong = given != truth
    assert roc_auc_score(wrong, scores.log_odds) > 0.99
    assert (scores.suggested == truth)[wrong].mean() > 0.75


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_expected_precision_is_the_precision(share):
    x, truth = clusters(classes=400, spread=1.4)
    given = mislabelled(truth, share)
    scores = cross_fit(x, given)
    expected, wrong = expected_precision(scores), given != truth
    assert abs(expected.wrong - share) < 0.02
    order = np.argsort(-scores.log_odds)
    precision = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    for level in (0.9, 0.7, 0.5):
        last = np.flatnonzero(expected.above[order] >= level)[-1]
        assert abs(precision[last] - expected.above[order][last]) < 0.07
    assert (np.diff(expected.above[order]) <= 0).all()


def test_a_label_does_not_speak_for_itself():
    x, labels = clusters(classes=12, each=6)
    other = labels.copy()
    other[7] = 9
    one, two = cross_fit(x, labels, folds=3), cross_fit(x, other, folds=3)
    # what was tried on a picture never depends on the label that it has
    assert np.isfinite(one.tried).any()
    assert two.suggested[7] == labels[7] and two.log_odds[7] > 0 > one.log_odds[7]


def test_pictures_of_one_group_do_not_speak_for_each_other():
    x, labels = clusters(classes=10, each=6)
    groups = np.tile([0, 0, 1, 1, 2, 2], 10)
    wrong = labels.copy()
    # two shots of one thing, both put into the wrong class
    wrong[:2] = 5
    x[1] = x[0] + 0.01
    together, apart = cross_fit(x, wrong), cross_fit(x, wrong, groups)
    assert (apart.log_odds[:2] > together.log_odds[:2]).all() and (apart.suggested[:2] == 0).all()


def test_a_class_of_one_picture_is_not_judged():
    x, labels = clusters(classes=8, each=5)
    labels[0] = 8
    scores = cross_fit(x, labels)
    assert np.isnan(scores.log_odds[0]) and np.isfinite(scores.log_odds[1:]).all()
    assert np.isnan(expected_precision(scores).above[0])


def test_classes_of_three_and_two_classes_are_enough():
    x, truth = clusters(classes=60, each=3)
    given = mislabelled(truth, 0.05)
    assert roc_auc_score(given != truth, np.nan_to_num(cross_fit(x, given).log_odds)) > 0.95
    x, labels = clusters(classes=2, each=4)
    assert np.isfinite(cross_fit(x, labels).log_odds).all()


def test_the_order_of_the_rows_of_a_file_and_its_precision_do_not_matter(tmp_path):
    x, labels = clusters(classes=10)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = cross_fit(np.load(tmp_path / "x.npy", mmap_mode="r"), labels)
    assert np.allclose(mapped.log_odds, cross_fit(x.astype(np.float16), labels).log_odds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(40, int)}, "two classes"),
        ({"labels": np.arange(40)}, "two pictures or more"),
        ({"labels": np.arange(39)}, "40 features, but labels of shape"),
        ({"labels": np.linspace(0, 1, 40)}, "integers"),
        ({"groups": np.zeros(3, int)}, "groups of shape"),
        ({"folds": 1}, "folds"),
        ({"features": np.full((40, 6), np.nan)}, "NaN"),
    ],
)
def test_what_is_wrong_with_the_arrays_is_named(change, message):
    arguments = {"features": np.random.default_rng(0).normal(size=(40, 6)), "labels": np.repeat(np.arange(8), 5)}
    arguments |= change
    with pytest.raises(ValueError, match=message):
        cross_fit(**arguments)
