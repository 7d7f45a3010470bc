"""The head in closed form against scikit-learn, on hard inputs, and as what it is for: unseen classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from idml_hf.evaluation import retrieval_metrics
from idml_hf.training.closed_form import discriminant_head


def clustered(seed: int = 0, classes: int = 12, each: int = 10, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    spread = random.normal(size=(width, width))
    return random.normal(size=(classes, width))[labels] + 0.3 * random.normal(
        size=(len(labels), width)
    ) @ spread, labels


def test_distances_are_those_of_scikit_learn_where_nothing_is_shrunk():
    x, y = clustered()
    weight, bias = discriminant_head(x, y, 4, shrinkage=1e-9)
    ours = x @ weight.T + bias
    theirs = LinearDiscriminantAnalysis(solver="eigen", n_components=4).fit(x, y).transform(x)
    ours, theirs = (np.linalg.norm(e[:, None] - e[None], axis=2) for e in (ours, theirs))
    assert np.abs(ours / ours.max() - theirs / theirs.max()).max() < 1e-4


def test_it_finds_unseen_classes_that_the_features_do_not():
    random = np.random.default_rng(1)
    labels = np.repeat(np.arange(60), 8)
    signal = random.normal(size=(60, 5))[labels] + 0.2 * random.normal(size=(480, 5))
    x = np.concatenate([signal, 2 * random.normal(size=(480, 20))], axis=1)
    seen = labels < 30
    weight, bias = discriminant_head(x[seen], labels[seen], 5, shrinkage=0.01)
    plain = retrieval_metrics(x[~seen], labels[~seen])["recall_at_1"]
    assert retrieval_metrics(x[~seen] @ weight.T + bias, labels[~seen])["recall_at_1"] > plain + 0.3


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.integers(1, 40), st.integers(0, 2**16))
def test_any_shape_gives_finite_numbers(width, dim, seed):
    x, y = clustered(seed, classes=3 + seed % 20, each=2, width=width)
    weight, bias = discriminant_head(x.astype(np.float16), y, dim)
    assert weight.shape == (dim, width) and bias.shape == (dim,)
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
    # no more directions than classes or features can tell apart
    assert (np.abs(weight).sum(1) > 0).sum() == min(dim, width, len(np.unique(y)) - 1)


def test_unlabelled_rows_are_left_out_and_bad_input_is_refused():
    x, y = clustered()
    some = np.where(np.arange(len(y)) % 3 == 0, -1, y)
    weight, _ = discriminant_head(x, some, 3)
    assert np.allclose(weight, discriminant_head(x[some >= 0], some[some >= 0], 3)[0])
    with pytest.raises(ValueError, match="at least two classes"):
        discriminant_head(x, np.zeros(len(x), int), 2)
    with pytest.raises(ValueError, match="at least two classes"):
        discriminant_head(x, np.arange(len(x)), 2)
    with pytest.raises(ValueError, match="120 features, but 3 labels"):
        discriminant_head(x, y[:3], 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        discriminant_head(np.where(x == x[5], np.nan, x), y, 2)
    with pytest.raises(ValueError, match="shrinkage must be positive"):
        discriminant_head(x, y, 2, shrinkage=0)
