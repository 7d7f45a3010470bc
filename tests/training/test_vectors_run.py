"""Embeddings that another model made: heads fitted to them, a model that takes vectors, an index of vectors."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModel
from typer.testing import CliRunner

from idml_hf import IDMLIndex, IDMLModel
from idml_hf.cli.main import app
from idml_hf.data import VectorSet
from idml_hf.evaluation import retrieval_metrics
from idml_hf.training import Run, train

WIDTH, CLASSES, EACH = 20, 60, 8


def vectors(seed=0, classes=CLASSES, each=EACH):
    """Classes around their centres, and more noise than signal in half of the values."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    labels = np.repeat(np.arange(classes), each)
    noise = np.random.default_rng(seed).normal(size=(len(labels), WIDTH))
    scale = np.r_[np.full(WIDTH // 2, 0.4), np.full(WIDTH - WIDTH // 2, 3.0)]
    return (centres[labels] + scale * noise).astype(np.float32), labels


def write(path, x, labels, **columns):
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    pq.write_table(pa.table({"embedding": embedding, "label": labels, **columns}), path)
    return str(path)


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of a user, and the model that the first of them makes."""
    folder = tmp_path_factory.mktemp("vectors")
    x, labels = vectors()
    write(folder / "x.parquet", x, labels, shop=np.arange(len(labels)) % EACH)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", labels)
    write(folder / "calibration.parquet", *vectors(1))
    write(folder / "queries.parquet", vectors(2)[0][::5], np.full(len(labels[::5]), -1))
    run("train", "--features", folder / "x.parquet", "--epochs", 2, "--output", folder / "m")
    return folder


def test_heads_find_classes_that_they_have_not_seen(folder):
    metrics = json.loads((folder / "m" / "metrics.json").read_text())
    x, labels = vectors()
    unseen = labels >= CLASSES // 2
    before = retrieval_metrics(x[unseen], labels[unseen])
    assert metrics["num_queries"] == unseen.sum()
    assert metrics["recall_at_1"] > before["recall_at_1"] + 0.2
    assert metrics["trunk_weights"] == "none" and metrics["dataset"] == "x.parquet"


def test_the_model_takes_vectors(folder):
    model = AutoModel.from_pretrained(folder / "m")
    assert isinstance(model, IDMLModel) and model.config.takes_vectors
    x, _labels = vectors()
    e = model.encode(x)
    assert e.semantic.shape == (len(x), WIDTH) and e.uncertainty.std() > 0
    assert np.allclose(model.encode(VectorSet.of(x, None, ())).semantic, e.semantic)
    card = (folder / "m" / "README.md").read_text()
    assert f"takes **vectors** of {WIDTH} values" in card and "pipeline_tag: feature-extraction" in card
    for file in ("preprocessor_config.json", "modules.json"):
        assert not (folder / "m" / file).exists()
    with pytest.raises(ValueError, match="takes a matrix"):
        model.encode(x[0])
    with pytest.raises(ValueError, match=r"takes \(B, 20\) vectors"):
        model.encode(x[:, :5])


def test_a_matrix_and_a_table_make_the_same_model(folder):
    run("train", "--features", folder / "x.npy", "--labels", folder / "y.npy", "--epochs", 2, "--output", folder / "n")
    x = vectors(3)[0]
    semantic = [IDMLModel.from_pretrained(folder / name).encode(x).semantic for name in "mn"]
    assert np.array_equal(*semantic)


def test_an_index_of_vectors_is_calibrated_and_searched(folder):
    made = ("index", folder / "m", "--features", folder / "x.parquet", "--output", folder / "i")
    said = run(*made, "--calibrate", folder / "calibration.parquet")
    assert f"Calibrated with {CLASSES * EACH} pictures" in said
    found = json.loads(run("search", folder / "i", "--features", folder / "queries.parquet", "--json", "--top-k", 3))
    _, labels = vectors(2)
    right = [entry["matches"][0]["name"] == str(label) for entry, label in zip(found, labels[::5], strict=True)]
    assert np.mean(right) > 0.5
    assert all(0 <= entry["confidence"] <= 1 and len(entry["matches"]) == 3 for entry in found)
    # the same by the class
    index = IDMLIndex.load(folder / "i")
    again = index.search(VectorSet.of(vectors(2)[0][::5], None, ()), k=3)
    assert again.ids.tolist() == [[match["id"] for match in entry["matches"]] for entry in found]
    built = IDMLIndex.build(str(folder / "m"), VectorSet.of(*vectors(), tuple(map(str, range(CLASSES)))))
    assert np.allclose(built.gallery.semantic, index.gallery.semantic, atol=1e-6)


def test_what_embed_wrote_is_indexed_and_trained_on(folder, tmp_path):
    pictures = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=WIDTH)
    pictures.save_pretrained(tmp_path / "p")
    x, labels = vectors()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), WIDTH)
    norms = {"uncertainty": np.linalg.norm(x, axis=1), "semantic_norm": np.ones(len(x), np.float32)}
    table = {"image": labels.astype(str), "label": labels, "class": labels.astype(str), "semantic": lists}
    pq.write_table(pa.table({**table, "uncertainty_embeds": lists, **norms}), tmp_path / "embeddings.parquet")
    run("index", tmp_path / "p", "--features", tmp_path, "--output", tmp_path / "i")
    assert np.allclose(IDMLIndex.load(tmp_path / "i").gallery.semantic, x, atol=1e-6)
    run("train", "--features", tmp_path, "--epochs", 1, "--output", tmp_path / "m")
    with pytest.raises(ValueError, match="the model takes images"):
        run("index", tmp_path / "p", "--features", folder / "x.parquet", "--output", tmp_path / "j")


def test_bad_input_is_named(folder, tmp_path):
    def fails(message, **settings):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(Run(output=str(tmp_path / "m"), **settings), progress=False)

    fails("labels are those of features", labels="y.npy")
    fails("leave out dataset", features="x.npy", dataset="emoji-mini")
    fails("has no labels", features=str(folder / "x.npy"))
    fails(
        "backbone is 'vectors' in .*cannot become 'resnet50'", features=str(folder / "x.parquet"), backbone="resnet50"
    )
    fails("no file .*gone.parquet", features=str(tmp_path / "gone.parquet"))
    fails("no column 'artist'", features=str(folder / "x.parquet"), group_column="artist")
    write(tmp_path / "narrow.parquet", vectors()[0][:, :7].copy(), vectors()[1])
    with pytest.raises(ValueError, match="vectors of 7 values, and the model takes 20"):
        run("index", folder / "m", "--features", tmp_path / "narrow.parquet", "--output", tmp_path / "i")
    with pytest.raises(ValueError, match="takes vectors, and no images"):
        run("index", folder / "m", "--dataset", "emoji-mini", "--output", tmp_path / "i")


def test_all_classes_may_train(folder, tmp_path):
    arguments = ("train", "--features", folder / "x.parquet", "--test-fraction", 0, "--epochs", 1)
    run(*arguments, "--output", tmp_path / "m")
    assert "recall_at_1" not in json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert IDMLModel.from_pretrained(tmp_path / "m").encode(vectors()[0]).semantic.shape[1] == WIDTH


def test_groups_are_a_column(folder, tmp_path):
    arguments = ("train", "--features", folder / "x.parquet", "--group-column", "shop", "--epochs", 1)
    run(*arguments, "--output", tmp_path / "m")
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["protocol"] == "grouped:shop"
