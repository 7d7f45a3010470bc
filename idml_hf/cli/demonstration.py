"""`idml-hf demo`: the whole product on the embedded emoji pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from idml_hf.data import ImageSet, load_retrieval_data
from idml_hf.embedding import embed_dataset
from idml_hf.evaluation import rank, retrieval_metrics
from idml_hf.hub.card import write_model_card
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.image_sheet import retrieval_sheet
from idml_hf.index import IDMLIndex
from idml_hf.modeling_idml import IDMLModel
from idml_hf.training.models import build_model
from idml_hf.training.run import train
from idml_hf.training.settings import Run

from .searching import result_table

COMMON: dict[str, Any] = {
    "dataset": "emoji-mini",
    "backbone": "tf_efficientnet_lite0",
    "image_size": 48,
    "embedding_dim": 128,
    "batch_size": 32,
    # an emoji and its mirror image, or a small part of it, may be another emoji
    "crop_scale": 0.6,
    "flip": 0.0,
}
# Features that are good already want small steps under fixed statistics; a small fresh trunk wants large ones.
FROM_PRETRAINED: dict[str, Any] = {
    "freeze_batch_norm": True,
    "epochs": 10,
    "learning_rate": 2e-4,
    "trainer": {"learning_rate_multipliers": {"proxies": 50, "head": 5}, "lr_scheduler_type": "cosine"},
}
FROM_SCRATCH: dict[str, Any] = {
    "backbone": "test_resnet",
    "pretrained": False,
    "epochs": 15,
    "learning_rate": 3e-3,
    "trainer": {"learning_rate_multipliers": {"proxies": 10}, "lr_scheduler_type": "cosine"},
}


def run_demo(output: Path, weights: Path | None = None) -> dict[str, Any]:
    """Train on the emoji of half the classes, and measure, save, reload and search on those of the other half.

    Args:
        output: Folder for model, processor, model card, metrics, pictures and index; what an earlier demo left is
            replaced.
        weights: Local file of trunk weights in timm's naming; without it, and without the Hub, training starts from
            random weights.

    Returns:
        The metrics.
    """
    started = time.monotonic()
    console = Console()
    data = load_retrieval_data(COMMON["dataset"])
    torch.manual_seed(0)
    console.rule("1. Train")
    console.print(f"{data.describe()}; no class is in both")
    settings = {
        "output": str(output),
        "weights": None if weights is None else str(weights),
        "overwrite": True,
    } | COMMON
    run = Run(**(settings | FROM_PRETRAINED))
    fresh = build_model(run, data.train.class_names)
    if fresh[2] == "random":
        run = Run(**(settings | FROM_SCRATCH))
        fresh = build_model(run, data.train.class_names)
    untrained = _recall(embed_dataset(fresh[0].idml, fresh[1], data.test, progress=False).semantic, data.test)
    pixels = _pixel_recall(data.test)
    metrics = train(run)

    console.rule("2. Reload from disk, and index the unseen classes")
    model = IDMLModel.from_pretrained(output)
    processor = IDMLImageProcessor.from_pretrained(output)
    IDMLIndex.build(model, data.test, processor).save(output / "index")
    index = IDMLIndex.load(output / "index")

    console.rule("3. Search")
    queries = _varied_queries(index, data.test)
    result = index.search_embeddings(
        index.gallery.semantic[queries],
        index.gallery.uncertainty_embeds[queries],
        k=6,
        queries=[data.test.image_id(q) for q in queries],
    )
    for entry, query in zip(result.to_dicts()[:3], queries, strict=False):
        entry["matches"] = [m for m in entry["matches"] if m["id"] != query][:5]
        entry["query"] = f"{data.test.class_names[data.test.labels[query]]} ({entry['query']})"
        console.print(result_table(entry))
    _draw_sheet(index, data.test, queries, output / "retrieval_sheet.png")

    metrics |= {
        "untrained_recall_at_1": untrained,
        "pixels_recall_at_1": pixels,
        "seconds": time.monotonic() - started,
    }
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    write_model_card(output)
    return metrics


def _recall(embeddings: np.ndarray, test: ImageSet) -> float:
    return retrieval_metrics(embeddings, test.labels, groups=test.groups)["recall_at_1"]


def _pixel_recall(test: ImageSet) -> float:
    pixels = np.stack([test.tensor(i).numpy().ravel() for i in range(len(test))]).astype(np.float32)
    return _recall(pixels - pixels.mean(0), test)


def _varied_queries(index: IDMLIndex, test: ImageSet, number: int = 8) -> list[int]:
    """Queries from the most certain to the least certain."""
    order = np.argsort(index.gallery.uncertainty, kind="stable")
    return [int(order[at]) for at in np.linspace(0, len(order) - 1, number).astype(int)]


def _draw_sheet(index: IDMLIndex, test: ImageSet, queries: list[int], path: Path) -> None:
    ranking = rank(index.gallery.semantic, test.labels, test.groups, keep=6)
    uncertainty = index.gallery.uncertainty
    retrieval_sheet(list(test), queries, ranking, test.labels, uncertainty=uncertainty).save(path)


__all__ = ["run_demo"]
