"""The watch over the uncertainty: judged over an epoch, with advice that is not followed already."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from idml_hf import IDMLConfig
from idml_hf.training import callbacks


@pytest.fixture
def warnings(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(callbacks.logger, "warning", said.append)
    return said


def epoch(monitor, batches, degraded_share=0.25, **config):
    for batch in batches:
        monitor.observe(torch.as_tensor(batch))
    args = SimpleNamespace(collapse_threshold=0.01, degraded_share=degraded_share)
    model = SimpleNamespace(config=IDMLConfig(**config))
    monitor.on_epoch_end(args, TrainerState(epoch=1.0), TrainerControl(), model=model)


def test_a_batch_of_like_images_is_no_collapse(warnings):
    monitor = callbacks.UncertaintyMonitor()
    monitor.observe(torch.full((8,), 0.2))
    assert monitor.logs()["uncertainty_spread"] == pytest.approx(0, abs=1e-6)
    epoch(monitor, [torch.full((8,), 0.4)])
    assert not warnings


@pytest.mark.parametrize(
    ("config", "share", "advice"),
    [
        ({"uncertainty_activation": "relu"}, 0.25, '"budget" prevents it'),
        ({"uncertainty_activation": "l2", "form": "released"}, 0.25, "makes it 1 for every image"),
        ({"uncertainty_ranking": 0.0}, 0.25, "uncertainty_ranking above 0"),
        ({}, 0.0, "degraded_share above 0"),
        ({}, 0.25, "smaller learning rate"),
    ],
)
def test_a_collapse_is_told_once_with_what_helps(warnings, config, share, advice):
    monitor = callbacks.UncertaintyMonitor()
    for _ in range(3):
        epoch(monitor, [torch.full((8,), 0.2), torch.full((4,), 0.2001)], share, **config)
    (text,) = warnings
    assert "over epoch 1 its spread over images was" in text and advice in text
    # what is on already is not advised
    assert ("budget" in text) == (config.get("uncertainty_activation") == "relu")


def test_what_nothing_trains_does_not_collapse(warnings):
    epoch(callbacks.UncertaintyMonitor(), [torch.full((8,), 0.2)], form="none", uncertainty_ranking=0.0)
    assert not warnings


def test_the_spread_is_that_of_all_images_of_the_epoch(warnings):
    """A spread just above and just below the threshold, between batches and within them."""
    for spread, expected in ((0.02, 0), (0.005, 1)):
        for batches in ([[1 - spread] * 8, [1 + spread] * 8], [[1 - spread, 1 + spread] * 4] * 2):
            warnings.clear()
            epoch(callbacks.UncertaintyMonitor(), batches)
            assert len(warnings) == expected
