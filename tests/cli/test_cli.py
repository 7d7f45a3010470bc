"""The command line: the whole path on a folder of pictures, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.cli import main
from idml_hf.data import load_retrieval_data

TINY = ["--backbone", "test_resnet", "--no-pretrained", "--image-size", "32", "--embedding-dim", "16"]
TINY += ["--batch-size", "24", "--epochs", "1"]


def run(*arguments) -> None:
    """Run the command line; a SystemExit with code 0 is success."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        if stop.code:
            raise


def fails(capsys, *arguments) -> str:
    """The error: one line, and perhaps a list under it."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code
    before, error, text = capsys.readouterr().err.partition("error: ")
    assert error and "Traceback" not in before + text
    return text


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Class folders of real pictures: 8 classes, the first half of which train."""
    root = tmp_path_factory.mktemp("photos")
    train = load_retrieval_data("emoji-mini", check_images=False).train
    for label in range(8):
        folder = root / f"{label:02d} {train.class_names[label].split(':')[0]}".replace("/", " ")
        folder.mkdir()
        for number, index in enumerate(np.flatnonzero(train.labels == label)):
            train.image(int(index)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    run("train", "--dataset", photos, *TINY, "--loss", "multi_similarity", "--output", output)
    return output


def test_train_leaves_a_model_with_its_records(trained, photos):
    assert IDMLModel.from_pretrained(trained).config.loss == "multi_similarity"
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["dataset"] == str(photos) and metrics["protocol"] == "plain" and metrics["num_queries"] > 30
    assert {"recall_at_1", "recall_at_8", "r_precision", "map_at_r", "mrr", "nmi", "r_auroc", "seconds"} <= set(
        metrics
    )
    record = json.loads((trained / "run.json").read_text())
    assert record["run"]["loss"] == "multi_similarity" and any("loss" in entry for entry in record["log"])
    with Image.open(trained / "training_curve.png") as curve:
        assert curve.width > 300
    assert "IDML" in (trained / "README.md").read_text()
    assert not (trained / "checkpoints").exists()


def test_evaluate_agrees_with_train(trained, photos, tmp_path):
    run("evaluate", trained, "--dataset", photos, "--output", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["recall_at_1"] == json.loads((trained / "metrics.json").read_text())["recall_at_1"]
    assert "<html" in (tmp_path / "report.html").read_text()


def test_index_and_search(trained, photos, tmp_path, capsys):
    run("index", trained, "--dataset", photos, "--output", tmp_path / "index")
    assert len(IDMLIndex.load(tmp_path / "index")) == sum(1 for _ in photos.rglob("*.png"))
    query = next(photos.rglob("3.png"))
    capsys.readouterr()
    run("search", tmp_path / "index", query, "--top-k", 3, "--json", "--sheet", tmp_path / "sheet.png")
    (entry,) = json.loads(capsys.readouterr().out)
    assert len(entry["matches"]) == 3 and entry["matches"][0]["path"] == str(query)
    assert entry["matches"][0]["score"] == pytest.approx(1, abs=1e-5) and entry["uncertainty"] > 0
    assert Image.open(tmp_path / "sheet.png").width > 300
    run("search", tmp_path / "index", query, "--metric", "introspective")
    assert "similarity" in capsys.readouterr().out
    error = fails(capsys, "search", tmp_path / "index", query, "--error-rate", 0.1)
    assert "not calibrated for cosine search: it can promise no error rate" in error


def test_embed(trained, photos, tmp_path):
    run("embed", trained, "--dataset", photos, "--output", tmp_path / "embedded")
    assert any((tmp_path / "embedded").iterdir())


def test_fine_tuning_and_recipes(trained, photos, tmp_path):
    (tmp_path / "recipe.yaml").write_text("loss: contrastive\nepochs: 3\ntrainer: {images_per_class: 3}\n")
    run("train", tmp_path / "recipe.yaml", "--model", trained, "--dataset", photos, "--batch-size", 12,
        "--epochs", 1, "--mixup", "--output", tmp_path / "tuned")  # fmt: skip
    settings = json.loads((tmp_path / "tuned" / "run.json").read_text())["run"]
    assert (settings["loss"], settings["epochs"], settings["mixup"]) == ("contrastive", 1, True)
    assert IDMLModel.from_pretrained(tmp_path / "tuned").config.embedding_dim == 16


def test_a_run_is_not_overwritten_unasked(trained, photos, capsys):
    before = (trained / "model.safetensors").read_bytes()
    assert "holds a run already" in fails(capsys, "train", "--dataset", photos, *TINY, "--output", trained)
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nothing/here"], "nothing/here"),
        (["--dataset", "emoji-mni"], "Did you mean 'emoji-mini'"),
        (["--backbone", "resnet_18"], "Did you mean 'resnet18'"),
        (["--loss", "proxy_ancor"], "did you mean 'proxy_anchor'"),
        (["--form", "ratoi"], "Did you mean 'ratio'"),
        (["--weights", "nothing.safetensors"], "nothing.safetensors"),
        (["--precision", "fp61"], "Did you mean 'fp16'"),
    ],
)
def test_mistakes_are_named_in_one_line(arguments, message, tmp_path, capsys):
    line = fails(capsys, "train", *TINY, *arguments, "--output", tmp_path / "out")
    assert message.lower() in line.lower()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_unknown_recipe_keys(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("learning_rat: 0.1\n")
    assert "Did you mean 'learning_rate'" in fails(
        capsys, "train", tmp_path / "recipe.yaml", "--output", tmp_path / "out"
    )


def test_unreadable_images_are_listed_and_can_be_skipped(photos, tmp_path, capsys):
    import shutil

    spoiled = tmp_path / "spoiled"
    shutil.copytree(photos, spoiled)
    first, second, *_ = sorted(spoiled.iterdir())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(first / "cut.jpg")
    (first / "cut.jpg").write_bytes((first / "cut.jpg").read_bytes()[:900])
    (first / "text.jpg").write_text("not a picture")
    Image.new("RGB", (1, 1)).save(second / "tiny.png")
    Image.new("L", (20, 20), 90).save(second / "grey.png")
    Image.new("RGBA", (20, 20), (9, 9, 9, 40)).save(second / "glass.png")
    (spoiled / "zz empty").mkdir()
    (spoiled / "00 lone").mkdir()
    Image.new("RGB", (30, 30), "red").save(spoiled / "00 lone" / "0.png")
    line = fails(capsys, "train", "--dataset", spoiled, *TINY, "--output", tmp_path / "out")
    assert "cut.jpg" in line and "text.jpg" in line and "--skip-bad-images" in line
    assert "tiny.png" not in line and "grey.png" not in line and "glass.png" not in line
    run("train", "--dataset", spoiled, *TINY, "--skip-bad-images", "--output", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["num_queries"] > 0


def test_checking_data(photos, tmp_path, capsys):
    run("data", "check", photos, "--output", tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) and Image.open(tmp_path / "contact_sheet.png").width
    first, *_, last = sorted(photos.iterdir())
    try:
        (last / "copy.png").write_bytes((first / "0.png").read_bytes())
        with pytest.raises(SystemExit):
            run("data", "check", photos)
        assert "copy.png" in capsys.readouterr().out
    finally:
        (last / "copy.png").unlink()
