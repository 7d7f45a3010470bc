"""Batches: their make-up, and that they depend on (seed, epoch) alone."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idml_hf.training.sampler import PKBatchSampler, RandomBatchSampler


def indices(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [[draw.index for draw in batch] for batch in sampler]


def test_random_batches_are_slices_of_one_permutation():
    small, large = RandomBatchSampler(50, 5, seed=3), RandomBatchSampler(50, 10, seed=3)
    flat = list(chain.from_iterable(indices(small)))
    assert sorted(flat) == list(range(50))
    assert indices(large) == [flat[i : i + 10] for i in range(0, 50, 10)]
    assert indices(small, 1) != indices(small, 0) == indices(RandomBatchSampler(50, 5, seed=3), 0)
    assert indices(RandomBatchSampler(50, 5, seed=4)) != indices(small)


def test_random_batches_drop_the_remainder_and_survive_few_images():
    assert [len(b) for b in indices(RandomBatchSampler(53, 10))] == [10] * 5
    assert [len(b) for b in indices(RandomBatchSampler(3, 10))] == [3]
    with pytest.raises(ValueError, match="no images"):
        RandomBatchSampler(0, 10)


def test_draws_carry_epoch_and_position():
    sampler = RandomBatchSampler(20, 5)
    sampler.set_epoch(7)
    draws = [draw for batch in sampler for draw in batch]
    assert [d.position for d in draws] == list(range(20)) and {d.epoch for d in draws} == {7}


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=3, max_size=20),
    p=st.integers(1, 3),
    k=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_pk_batches_hold_p_classes_with_k_images_each(counts, p, k, seed):
    labels = np.repeat(np.arange(len(counts)) * 10, counts)
    labels = np.random.default_rng(seed).permutation(labels)
    sampler = PKBatchSampler(labels, p, k, seed)
    batches = indices(sampler, 1)
    assert len(batches) == len(sampler) == max(1, len(labels) // (p * k))
    for batch in batches:
        classes, sizes = np.unique(labels[batch], return_counts=True)
        assert len(classes) == p and (sizes == k).all()
        for c in classes:
            mine = [i for i in batch if labels[i] == c]
            # an image comes twice only where its class has fewer than K
            assert len(set(mine)) == min(k, (labels == c).sum())
    assert batches == indices(PKBatchSampler(labels, p, k, seed), 1)


def test_pk_epochs_show_nearly_every_image():
    labels = np.repeat(np.arange(24), 10)
    sampler = PKBatchSampler(labels, 8, 5)
    seen = list(chain.from_iterable(indices(sampler)))
    assert len(seen) == 240 and len(set(seen)) >= 230


def test_pk_needs_enough_classes():
    with pytest.raises(ValueError, match="at least 4 classes; there are 3"):
        PKBatchSampler(np.arange(3), 4, 2)
