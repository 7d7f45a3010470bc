"""A small run's folder, and a Hub to push it to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_standin import Hub, running_hub
from PIL import Image

from idml_hf import IDMLForImageClassification, IDMLImageProcessor, IDMLModel
from idml_hf.data import load_images
from idml_hf.embedding import embed_dataset
from idml_hf.evaluation import RetrievalEvaluator, rank
from idml_hf.evaluation.plots import risk_coverage_plot
from idml_hf.index import IDMLIndex

SETTINGS = {
    "output": "/home/someone/private/run",
    "dataset": "emoji-mini",
    "root": "/home/someone/data",
    "weights": "/home/someone/weights/tf_efficientnet_lite0.in1k.safetensors",
    "loss": "proxy_anchor",
    "form": "ratio",
    "epochs": 3,
    "learning_rate": 6e-4,
    "trainer": {"warmup_steps": 5},
    "workers": 2,
}


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves: a model, what was really measured of it, pictures, an index; and checkpoints."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "small-run"
    model = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=16)
    torch.nn.init.normal_(model.uncertainty_head.linear.weight)  # images differ in uncertainty
    processor = IDMLImageProcessor.from_backbone("test_resnet", image_size=32)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)

    images = load_images("emoji-mini", "test").select(list(range(60)))
    embeddings = embed_dataset(model, processor, images, progress=False)
    evaluator = RetrievalEvaluator(group_column="family", clustering=True)
    metrics = {"dataset": "emoji-mini", **evaluator(embeddings, images.labels, groups=images.groups)}
    metrics |= {"trunk_weights": "tf_efficientnet_lite0.in1k.safetensors", "pixels_recall_at_1": 0.25, "seconds": 12.3}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    log = [{"loss": 3.0, "epoch": 1.0, "step": 10}]
    (folder / "run.json").write_text(json.dumps({"run": SETTINGS, "log": log}))
    ranking = rank(embeddings.semantic, images.labels, images.groups)
    risk_coverage_plot(ranking, embeddings.uncertainty, embeddings.semantic_norm).savefig(folder / "risk_coverage.png")
    Image.new("RGB", (40, 30), "white").save(folder / "training_curve.png")
    model = IDMLModel.from_pretrained(folder)
    IDMLIndex.build(model, images, processor, progress=False).save(folder / "index")

    checkpoint = folder / "checkpoints" / "checkpoint-10"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "README.md"):
        (checkpoint / name).write_bytes(b"never to be seen by others")
    (folder / "notes.txt").write_text("for me only")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    return folder


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, to be changed at will."""
    folder = tmp_path / finished_run.name
    shutil.copytree(finished_run, folder)
    return folder


@pytest.fixture
def classifier_folder(tmp_path: Path) -> Path:
    """What a classification run leaves."""
    folder = tmp_path / "classifier"
    labels = {0: "cat", 1: "dog", 2: "owl"}
    model = IDMLForImageClassification.from_backbone("test_resnet", pretrained=False, num_labels=3, id2label=labels)
    model.save_pretrained(folder)
    IDMLImageProcessor.from_backbone("test_resnet", image_size=32).save_pretrained(folder)
    metrics = {"dataset": "cifar10", "top1": 0.5, "top5": 0.9, "ece": 0.1, "nll": 1.5, "trunk_weights": "random"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that this process is logged in to, with an empty cache."""
    with running_hub() as hub:
        hub.here(monkeypatch, tmp_path / "home")
        yield hub
