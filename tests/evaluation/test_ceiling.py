from __future__ import annotations

import numpy as np
import pytest

from idml_hf.evaluation import ceiling_metrics


def queries(classes: int = 60, each: int = 10) -> tuple[np.random.Generator, np.ndarray]:
    return np.random.default_rng(0), np.arange(classes * each) % classes


def test_what_the_embedding_shows_is_found_and_noise_is_not() -> None:
    rng, labels = queries()
    x = rng.standard_normal((600, 20))
    correct = x @ rng.standard_normal(20) + rng.standard_normal(600) > 0
    known = ceiling_metrics(x, rng.random(600), correct, labels)
    assert known["r_auroc_ceiling"] > 0.9
    assert known["r_auroc_ceiling_low"] < known["r_auroc_ceiling"] < known["r_auroc_ceiling_high"]
    noise = ceiling_metrics(x, rng.random(600), rng.random(600) > 0.5, labels)
    assert noise["r_auroc_ceiling_low"] < 0.5 < noise["r_auroc_ceiling_high"]


def test_answers_of_a_class_do_not_tell_those_of_another() -> None:
    """A probe that saw the judged classes would know all of it."""
    rng, labels = queries(30, 20)
    lucky = rng.random(30) > 0.5
    correct = lucky[labels] ^ (rng.random(600) < 0.05)
    ceiling = ceiling_metrics(np.eye(30)[labels], rng.random(600), correct, labels)
    assert abs(ceiling["r_auroc_ceiling"] - 0.5) < 0.1


def test_the_share_reached_is_that_of_the_way_from_chance() -> None:
    rng, labels = queries()
    doubt = rng.random(600)
    correct = rng.random(600) > doubt
    ceiling = ceiling_metrics(np.zeros((600, 1)), doubt, correct, labels, splits=8)
    # the probe sees the uncertainty, and there is nothing else to see
    assert ceiling["r_auroc_ceiling_reached"] == pytest.approx(1, abs=0.02)
    inverted = ceiling_metrics(np.zeros((600, 1)), -doubt, correct, labels, splits=8)
    assert inverted["r_auroc_ceiling_reached"] == pytest.approx(-1, abs=0.02)


def test_the_same_seed_gives_the_same_ceiling_and_scale_does_not_matter() -> None:
    rng, labels = queries(20, 6)
    x, doubt, correct = rng.standard_normal((120, 5)), rng.random(120), rng.random(120) > 0.4
    first = ceiling_metrics(x, doubt, correct, labels, seed=3)
    names = np.array([f"class {label:02}" for label in labels])
    assert ceiling_metrics(1e6 * x + 5, 1e-6 * doubt, correct, names, seed=3) == pytest.approx(first, abs=1e-6)
    assert ceiling_metrics(x, doubt, correct, labels, seed=4) != first


@pytest.mark.parametrize("correct", [np.ones(40, bool), np.zeros(40, bool), np.arange(40) % 4 == 0])
def test_answers_that_are_all_alike_have_no_ceiling(correct: np.ndarray) -> None:
    """The last: all right answers are of one class."""
    ceiling = ceiling_metrics(np.ones((40, 2)), np.arange(40.0), correct, np.arange(40) % 4)
    assert all(np.isnan(value) for value in ceiling.values()) and len(ceiling) == 4
