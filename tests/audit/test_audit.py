import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import idml_hf
from idml_hf.audit.findings import COLUMNS, KINDS
from idml_hf.cli.main import main
from idml_hf.data import ImageSet, load_images, load_retrieval_data
from idml_hf.data.exclusions import is_harmful


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Class folders with one fault of each kind."""
    folder = tmp_path_factory.mktemp("audited") / "photos"
    images = load_images("emoji-mini", split="train")
    for label in range(12):
        (folder / f"class-{label:02}").mkdir(parents=True)
        for number, at in enumerate(np.flatnonzero(images.labels == label)):
            images[int(at)].save(folder / f"class-{label:02}" / f"{number}.png")
    shutil.copy(folder / "class-03/1.png", folder / "class-05/copied.png")
    shutil.copy(folder / "class-07/1.png", folder / "class-07/again.png")
    PIL.Image.new("RGB", (48, 48), "white").save(folder / "class-09/white.png")
    (folder / "class-09/broken.png").write_bytes(b"no picture")
    PIL.Image.open(folder / "class-02/1.png").resize((12, 12)).save(folder / "class-02/tiny.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    made = idml_hf.IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=16, pool="statistics")
    made.save_pretrained(folder)
    idml_hf.IDMLImageProcessor.from_backbone("test_resnet", image_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def written(photos, model, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("output")
    with pytest.raises(SystemExit) as stop:
        main(
            ["audit", str(photos), "--model", str(model), "--output", str(output), "--apply", str(output / "keep.csv")]
        )
    assert not stop.value.code
    return output


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def names(file: Path, kind: str) -> set[str]:
    return {"/".join(Path(row["path"]).parts[-2:]) for row in rows(file) if row["kind"] == kind}


def test_every_planted_fault_is_found(written):
    file = written / "findings.csv"
    assert names(file, "unreadable") == {"class-09/broken.png"}
    assert names(file, "tiny") == {"class-02/tiny.png"}
    assert names(file, "blank") == {"class-09/white.png"}
    exact = [row for row in rows(file) if row["duplicate_of"] and float(row["score"]) == 1]
    assert {row["kind"] for row in exact} == {"conflict", "redundant"} and len(exact) == 2


def test_the_files_agree(written):
    found = rows(written / "findings.csv")
    assert tuple(found[0]) == COLUMNS
    summary = json.loads((written / "summary.json").read_text())
    assert sum(summary["findings"].values()) == len(found) and set(summary["findings"]) == set(KINDS)
    assert all(0 <= float(row["score"]) <= 1 for row in found)
    assert all(bool(row["expected_precision"]) == (row["kind"] == "wrong_label") for row in found)
    kept = {row["path"] for row in rows(written / "keep.csv")}
    dropped = {row["path"] for row in found if is_harmful(row["kind"], float(row["score"]))}
    assert not kept & dropped and len(kept) + len(dropped) == summary["images"]


def test_the_page_holds_its_pictures(written):
    page = (written / "findings.html").read_text(encoding="utf-8")
    assert "data:image/" in page and not re.search(r'(src|href)="(?!data:|#)', page)


def test_python_gives_the_same_table(photos, model, written, tmp_path):
    table = idml_hf.audit(photos, model=model, progress=False, output=tmp_path / "again")
    assert tuple(table.columns) == COLUMNS
    assert (tmp_path / "again/findings.csv").read_text() == (written / "findings.csv").read_text()


def test_training_leaves_out_what_was_found(photos, written):
    with_all = load_retrieval_data(photos, skip_bad_images=True)
    data = load_retrieval_data(photos, skip_bad_images=True, exclude=written / "findings.csv")
    dropped = {row["path"] for row in rows(written / "findings.csv") if is_harmful(row["kind"], float(row["score"]))}
    assert set(data.train.paths) == set(with_all.train.paths) - dropped
    assert data.test.paths == with_all.test.paths


def test_a_list_of_other_pictures_is_refused(photos, tmp_path):
    (tmp_path / "a.csv").write_text("path\nnowhere.png\n")
    with pytest.raises(ValueError, match="names none of the training images"):
        load_retrieval_data(photos, skip_bad_images=True, exclude=tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("file\nnowhere.png\n")
    with pytest.raises(ValueError, match="no column 'path'"):
        load_retrieval_data(photos, skip_bad_images=True, exclude=tmp_path / "b.csv")


def test_copies_across_splits_are_leaks(model):
    images = load_images("emoji-mini", split="train")
    images = images.select(np.isin(images.labels, range(6)))
    both = np.concatenate([np.arange(len(images)), [4]])
    table = idml_hf.audit(
        images.select(both), model=model, progress=False, splits=np.append(np.zeros(len(images), int), 1)
    )
    leaks = table[table.kind == "leak"]
    assert leaks.score.max() == 1 and set(leaks.path) == {images.image_id(4)}


def test_what_an_audit_needs_is_said(photos, model):
    with pytest.raises(ValueError, match="--backbone"):
        idml_hf.audit(photos)
    with pytest.raises(ValueError, match="a model has its own"):
        idml_hf.audit(photos, model=model, image_size=64)
    bare = ImageSet.from_arrays(np.zeros((4, 8, 8), np.uint8), [-1] * 4, [], "bare")
    with pytest.raises(ValueError, match="classes"):
        idml_hf.audit(bare, model=model)
