"""The confidence on classes that did not calibrate it."""

from __future__ import annotations

import numpy as np

from idml_hf.confidence.held_out import held_out_confidence
from idml_hf.confidence.labelled_queries import LabelledQueries, judge_among_themselves
from idml_hf.evaluation import rank


def clusters(classes: int, each: int, noise: float, seed: int = 0) -> LabelledQueries:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    # classes differ in how hard they are, so that there is something to know
    hard = random.uniform(0.3, 2.0, classes)[labels, None]
    x = random.normal(size=(classes, 12))[labels] + noise * hard * random.normal(size=(len(labels), 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return LabelledQueries(x.astype(np.float32), np.ones((len(labels), 1), np.float32), labels)


def test_it_tells_right_from_wrong_and_keeps_what_it_promises():
    queries = clusters(200, 8, 0.6)
    held_out = held_out_confidence(queries)
    metrics = held_out.metrics
    assert metrics["confidence_auroc"] > 0.8
    shares = [metrics[f"answered_at_{percent}"] for percent in (5, 10, 20)]
    assert shares == sorted(shares) and shares[-1] > 0.2
    for percent in (5, 10, 20):
        error = metrics[f"error_at_{percent}"]
        assert (error is None) == (metrics[f"answered_at_{percent}"] == 0)
        # at most what is promised, but for chance
        assert error is None or error < percent / 100 + 0.03


def test_the_confidences_are_those_of_the_ranking_s_queries_in_their_order():
    queries = clusters(60, 6, 0.7)
    lone = np.append(queries.labels, 999)
    queries = LabelledQueries(
        np.concatenate([queries.semantic, queries.semantic[:1] * [[-1] + [1] * 11]]).astype(np.float32),
        np.ones((len(lone), 1), np.float32),
        lone,
    )
    ranking = rank(queries.semantic, queries.labels)
    outcomes = judge_among_themselves(queries, most=None)
    assert np.array_equal(outcomes.correct[outcomes.present], ranking.correct[ranking.counted])
    assert len(held_out_confidence(queries).confidence) == ranking.counted.sum() == len(lone) - 1


def test_it_is_none_where_there_is_nothing_to_learn_from():
    assert held_out_confidence(clusters(4, 3, 0.5)) is None
    assert held_out_confidence(clusters(40, 6, 0.0)) is None
