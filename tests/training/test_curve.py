"""The picture of a training run: what was measured, and titles that say what it came to."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from PIL import Image

from idml_hf.training.curve import plot_training

STEPS = [{"loss": 2.0 / (1 + n), "learning_rate": 0.01 * n, "epoch": n / 2, "uncertainty_mean": 0.2} for n in range(7)]
MEASURED = [
    {"epoch": n, "eval_recall_at_1": value, "eval_r_auroc": None} for n, value in ((1, 0.2), (2, 0.5), (3, 0.4))
]


@pytest.fixture
def titles(monkeypatch):
    """The titles of the figures that are drawn."""
    drawn = []
    save = Figure.savefig

    def saved(figure, *arguments, **options):
        drawn.extend(axes.get_title() for axes in figure.axes)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    return drawn


def test_the_curve_shows_what_changes(titles, tmp_path):
    plot_training([*STEPS, *MEASURED, {"train_runtime": 3.0}], tmp_path / "curve.png")
    assert titles == [
        "Training loss fell from 2.0000 to 0.2857",
        "Validation R@1:\nbest 50.0 %, after epoch 2",
        "Learning rate, at most 0.06",
    ]
    assert Image.open(tmp_path / "curve.png").width > 900


def test_a_run_that_trained_nothing_has_an_empty_picture(titles, tmp_path):
    plot_training([], tmp_path / "curve.png")
    assert titles == [] and (tmp_path / "curve.png").exists()
