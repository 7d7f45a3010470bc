"""The cards in `model_cards/` are those that their records make."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from idml_hf.hub import validate_card

CARDS = Path(__file__).parents[2] / "model_cards"


@pytest.fixture(scope="module")
def update():
    spec = importlib.util.spec_from_file_location("model_cards_update", CARDS / "update.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_card_is_up_to_date_and_valid(update):
    folders = update.card_folders()
    assert folders, "there is the card of the demo at least"
    for folder in folders:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert text == update.card_text(folder), f"run `python model_cards/update.py`: {folder.name} is out of date"
        assert validate_card(text).eval_results


def test_a_run_is_taken_over_without_weights_or_paths(update, run_folder, tmp_path, monkeypatch):
    cards = tmp_path / "cards"
    cards.mkdir()
    monkeypatch.setattr(update, "CARDS", cards)
    monkeypatch.setattr("sys.argv", ["update.py", str(run_folder), "small", "--baseline", str(run_folder)])
    update.main()
    files = {path.name for path in (cards / "small").iterdir()}
    pictures = {"risk_coverage.png", "training_curve.png"}
    assert files == {"README.md", "config.json", "metrics.json", "baseline_metrics.json", "run.json"} | pictures
    assert all(b"/home/someone" not in path.read_bytes() for path in (cards / "small").iterdir())
    assert "plain loss, otherwise the same" in (cards / "small" / "README.md").read_text()


def test_the_template_beside_the_cards_is_the_packages(update):
    import idml_hf.hub

    shipped = Path(idml_hf.hub.__file__).parent / "model_card.md.jinja"
    assert (CARDS / "template.md.jinja").read_bytes() == shipped.read_bytes()
