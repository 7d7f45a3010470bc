"""`idml-hf demo`: the whole product on the embedded emoji pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..data import ImageSet, load_retrieval_data
from ..evaluation import rank, retrieval_metrics
from ..evaluation.sheets import retrieval_sheet
from ..hub.card import write_model_card
from ..image_processing_idml import IDMLImageProcessor
from ..modeling_idml import IDMLModel
from ..retrieval import IDMLIndex, embed_dataset
from ..training.recipe import RetrievalRun
from ..training.run import build_model, train_retrieval
from .searching import result_table

RECIPE = {
    "dataset": "emoji-mini",
    "backbone": "tf_efficientnet_lite0",
    "image_size": 48,
    "embedding_dim": 128,
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
    run = RetrievalRun(output=str(output), weights=None if weights is None else str(weights), overwrite=True, **RECIPE)
    data = load_retrieval_data(run.dataset)
    console.rule("1. Train")
    console.print(f"{data.describe()}; no class is in both")
    untrained = _untrained_recall(run, data.test, data.train.num_classes)
    pixels = _pixel_recall(data.test)
    metrics = train_retrieval(run)

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


def _untrained_recall(run: RetrievalRun, test: ImageSet, num_classes: int) -> float:
    import torch

    torch.manual_seed(run.seed)
    model, processor, _ = build_model(run, num_classes)
    embeddings = embed_dataset(model.idml, processor, test, progress=False)
    return retrieval_metrics(embeddings.semantic, test.labels, groups=test.groups)["recall_at_1"]


def _pixel_recall(test: ImageSet) -> float:
    pixels = np.stack([np.asarray(test.image(i), dtype=np.float32).ravel() for i in range(len(test))])
    return retrieval_metrics(pixels - pixels.mean(0), test.labels, groups=test.groups)["recall_at_1"]


def _varied_queries(index: IDMLIndex, test: ImageSet, number: int = 8) -> list[int]:
    """Queries from the most certain to the least certain."""
    order = np.argsort(np.linalg.norm(index.gallery.uncertainty_embeds, axis=1), kind="stable")
    return [int(order[at]) for at in np.linspace(0, len(order) - 1, number).astype(int)]


def _draw_sheet(index: IDMLIndex, test: ImageSet, queries: list[int], path: Path) -> None:
    ranking = rank(index.gallery.semantic, test.labels, test.groups, keep=6)
    uncertainty = np.linalg.norm(index.gallery.uncertainty_embeds, axis=1)
    retrieval_sheet(test, queries, ranking, test.labels, uncertainty=uncertainty).save(path)


__all__ = ["run_demo"]
