from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from idml_hf import IDMLForImageClassification, IDMLImageProcessor, IDMLModel, model_evaluation
from idml_hf.data import load_images
from idml_hf.embedding import embed_dataset
from idml_hf.evaluation import RetrievalEvaluator, retrieval_metrics
from idml_hf.evaluation.classification import classification_metrics
from idml_hf.model_evaluation import evaluate_classifier, evaluate_images, evaluate_model


@pytest.fixture(scope="module")
def images() -> Any:
    return load_images("emoji-mini", "test").select(list(range(40)))


@pytest.fixture(scope="module")
def processor() -> IDMLImageProcessor:
    return IDMLImageProcessor.from_backbone("test_resnet", image_size=32)


@pytest.fixture(scope="module")
def model() -> IDMLModel:
    torch.manual_seed(0)
    return IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=16)


def test_a_model_is_measured_by_what_it_embeds(model: Any, processor: Any, images: Any) -> None:
    seen: list[int | None] = []

    class Evaluator(RetrievalEvaluator):
        def evaluate_images(self, embed: Any, images: Any, **options: Any) -> Any:
            seen.append(options["side"])
            return super().evaluate_images(embed, images, **options)

    evaluator = Evaluator(robustness_images=2)
    evaluation = evaluate_images(model, processor, images, evaluator=evaluator, ood_images=images, progress=False)
    embeddings = embed_dataset(model, processor, images, progress=False)
    expected = retrieval_metrics(embeddings.semantic, images.labels, groups=images.groups)
    assert evaluation.metrics.items() >= expected.items()
    assert evaluation.metrics["ood_auroc"] == pytest.approx(0.5)
    assert seen == [min(side for side in dict(processor.size).values() if side)]


def test_a_classifier_is_measured_by_its_logits(processor: Any, images: Any) -> None:
    model = IDMLForImageClassification.from_backbone("test_resnet", pretrained=False, num_labels=images.num_classes)
    metrics = evaluate_classifier(model, processor, images, progress=False)
    with torch.no_grad():
        pixels = processor([images[i] for i in range(len(images))], return_tensors="pt").pixel_values
        out = model.eval()(pixels)
    expected = classification_metrics(out.logits.numpy(), images.labels, out.uncertainty.numpy())
    assert metrics["top1"] == expected["top1"] and metrics["nll"] == pytest.approx(expected["nll"], abs=1e-5)
    assert metrics["uncertainty_mean"] == pytest.approx(float(out.uncertainty.mean()), rel=1e-4)
    json.dumps(metrics, allow_nan=False)


def test_a_saved_model_leaves_metrics_and_a_report(
    model: Any, processor: Any, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(model_evaluation, "load_images", lambda *arguments, **options: images)
    output = tmp_path / "made" / "report"
    metrics = evaluate_model(tmp_path / "model", "emoji-mini", output, foreign="the same", progress=False)
    assert metrics["ood_auroc"] == pytest.approx(0.5)
    classes = pandas.read_csv(output / "classes.csv")
    assert classes["num_queries"].sum() == metrics["num_queries"]
    assert np.average(classes["map_at_r"], weights=classes["num_queries"]) == pytest.approx(metrics["map_at_r"])
    assert classes["map_at_r"].mean() == pytest.approx(metrics["macro_map_at_r"])
    assert classes["name"].tolist() == [images.class_names[label] for label in classes["label"]]
    assert json.loads((tmp_path / "made/report/metrics.json").read_text()) == metrics
    assert metrics["dataset"] == "emoji-mini" and metrics["protocol"] == f"grouped:{images.group_column}"
    assert 0 <= metrics["nmi"] <= 1 and np.isfinite(metrics["crop_test"])
    assert "metrics.json" in (tmp_path / "made/report/report.html").read_text("utf-8")
