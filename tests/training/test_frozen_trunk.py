"""Heads fitted to a frozen backbone: one pass over the images, then seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from idml_hf import IDMLForMetricLearning, IDMLImageProcessor, IDMLModel, IDMLTrainingArguments
from idml_hf.data import load_images
from idml_hf.embedding import embed_dataset
from idml_hf.evaluation import retrieval_metrics
from idml_hf.training import Run, train
from idml_hf.training.frozen_trunk import closed_form, fit_heads, read_features


@pytest.fixture(scope="module")
def images():
    train_images = load_images("emoji-mini", "train")
    return train_images.select(np.flatnonzero(train_images.labels < 24))


@pytest.fixture(scope="module")
def processor():
    return IDMLImageProcessor.from_backbone("test_resnet", 32)


def model_for(images, **fields):
    torch.manual_seed(0)
    return IDMLForMetricLearning.from_backbone(
        "test_resnet",
        pretrained=False,
        pool="statistics",
        embedding_dim=16,
        reference_size=64,
        reference_weight=0.0,
        num_train_classes=images.num_classes,
        **fields,
    )


def arguments(folder, **own):
    return IDMLTrainingArguments(
        str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=32,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **own,
    )


def test_closed_form_fits_the_classes_and_only_the_uncertainty_is_trained(images, processor, tmp_path):
    model = model_for(images)
    trunk = {k: v.clone() for k, v in model.idml.backbone.state_dict().items()}
    uncertainty = model.idml.uncertainty_head.linear.weight.clone()
    untrained = embed_dataset(model.idml, processor, images, progress=False).semantic
    stored = read_features(model.idml, processor, images, degraded_share=0.25, progress=False)
    assert stored.features.shape == (len(images), model.idml.feature_width)
    share = sum(max(1, round(0.25 * len(b))) for b in np.split(images.labels, range(64, len(images), 64)))
    assert [len(rows) for rows in stored.degraded] == [share, share]
    log = fit_heads(model, stored, arguments(tmp_path), "closed_form")
    assert log and all(torch.equal(v, trunk[k]) for k, v in model.idml.backbone.state_dict().items())
    assert not torch.equal(model.idml.uncertainty_head.linear.weight, uncertainty)
    assert model.idml.reference.seen > 0
    fitted = embed_dataset(model.idml, processor, images, progress=False).semantic
    before, after = (retrieval_metrics(e, images.labels)["map_at_r"] for e in (untrained, fitted))
    assert after > before + 0.2


@pytest.mark.parametrize(
    ("fields", "head", "semantic_moves"),
    [
        ({"form": "none", "uncertainty_ranking": 0.0}, "closed_form", False),
        ({"form": "none"}, "trained", True),
        ({"uncertainty_ranking": 0.0}, "closed_form", True),
    ],
)
def test_what_is_trained(images, processor, tmp_path, fields, head, semantic_moves):
    model, closed = model_for(images, **fields), model_for(images, form="none", uncertainty_ranking=0.0)
    stored = read_features(model.idml, processor, images, progress=False)
    fit_heads(closed, stored, arguments(tmp_path), "closed_form")
    log = fit_heads(model, stored, arguments(tmp_path), head)
    moved = (model.idml.semantic_head.weight - closed.idml.semantic_head.weight).abs().max() > 1e-6
    assert bool(moved) == semantic_moves
    assert bool(log) == semantic_moves


def test_a_fixed_head_costs_no_loss_and_few_batches(images, processor, tmp_path, monkeypatch):
    model = model_for(images)
    stored = read_features(model.idml, processor, images, progress=False)
    proxies = model.loss.proxies.clone()

    def forward(*args, **kwargs):
        raise AssertionError("the loss of a head that is fixed was computed")

    monkeypatch.setattr(type(model.loss), "forward", forward)
    monkeypatch.setattr("idml_hf.training.frozen_trunk.MOST_STEPS", 3)
    log = fit_heads(model, stored, arguments(tmp_path), "closed_form")
    assert log[-1]["step"] == 3 and torch.equal(model.loss.proxies, proxies)
    # who says how many batches gets them
    assert fit_heads(model, stored, arguments(tmp_path, max_steps=5), "closed_form")[-1]["step"] == 5


def test_vectors_of_any_length_have_the_head_of_their_directions():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 10)
    x = random.normal(size=(12, 6))[labels] + 0.3 * random.normal(size=(120, 6)) + 2
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    heads = [closed_form(rows, labels, 4) for rows in (unit, x * random.uniform(0.5, 9, (120, 1)))]
    assert np.allclose(heads[0][0], heads[1][0], atol=1e-3)
    outputs = unit @ heads[0][0].T + heads[0][1]
    assert np.linalg.norm(outputs, axis=1).mean() == pytest.approx(1, abs=1e-4)
    assert np.abs(outputs.mean(0)).max() < 0.01


@pytest.mark.slow
def test_a_run_with_a_frozen_trunk_leaves_a_whole_model(tmp_path):
    settings = {
        "backbone": "test_resnet",
        "pretrained": False,
        "image_size": 32,
        "embedding_dim": 16,
        "epochs": 1,
        "batch_size": 64,
    }
    metrics = train(Run(output=str(tmp_path / "m"), frozen_trunk=True, **settings), progress=False)
    assert metrics["recall_at_1"] > 0.05
    record = json.loads((tmp_path / "m" / "run.json").read_text())
    assert record["run"]["pool"] == "statistics" and record["run"]["frozen_trunk"]
    model = IDMLModel.from_pretrained(tmp_path / "m")
    assert model.config.backbone == "test_resnet" and model.config.reference_weight == 0
    again = train(Run(output=str(tmp_path / "n"), frozen_trunk=True, **settings), progress=False)
    for name in ("recall_at_1", "map_at_r", "r_auroc"):
        assert again[name] == metrics[name]
