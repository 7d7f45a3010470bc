"""The demo: all its parts with a tiny trunk, and (slow) its promised results."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from idml_hf import IDMLImageProcessor, IDMLIndex, IDMLModel
from idml_hf.cli import demonstration as demo
from idml_hf.cli import main


def test_everything_is_in_one_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(demo.COMMON, "backbone", "test_resnet")
    monkeypatch.setitem(demo.FROM_SCRATCH, "batch_size", 230)
    monkeypatch.setitem(demo.FROM_SCRATCH, "epochs", 1)
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--output", str(tmp_path / "demo")])
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "R@1 of raw pixels" in printed and "uncertainty" in printed
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert metrics["dataset"] == "emoji-mini" and metrics["protocol"] == "grouped:family"
    assert metrics["pixels_recall_at_1"] == pytest.approx(0.324, abs=5e-4)
    assert 0 < metrics["untrained_recall_at_1"] < 0.3 and metrics["trunk_weights"] == "random"
    assert metrics["confidence_auroc"] > 0.6
    for percent in (5, 10, 20):
        assert 0 <= metrics[f"answered_at_{percent}"] <= 1 and f"error_at_{percent}" in metrics
    # one answer that is given or one that is not, with what it takes
    assert "an answer takes" in printed or "not sure" in printed
    # the folder can be moved, for the index names its model by a relative path
    moved = (tmp_path / "demo").rename(tmp_path / "moved")
    assert IDMLModel.from_pretrained(moved).config.embedding_dim == 128
    assert IDMLImageProcessor.from_pretrained(moved).crop_size["height"] == 48
    index = IDMLIndex.load(moved / "index")
    assert index.calibration is not None
    assert len(index) == 2279 and index.model.config.embedding_dim == 128
    for picture in ("training_curve.png", "retrieval_sheet.png"):
        with Image.open(moved / picture) as image:
            assert image.width > 300
    assert "model-index" in (moved / "README.md").read_text()


@pytest.mark.slow
def test_what_training_from_scratch_promises(tmp_path):
    with pytest.raises(SystemExit):
        main(["demo", "--output", str(tmp_path)])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["recall_at_1"] >= 2 * metrics["untrained_recall_at_1"]
    assert metrics["seconds"] <= 240
