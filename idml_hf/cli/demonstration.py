"""`idml-hf demo`: the whole product on the embedded emoji pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from idml_hf.data import ImageSet, load_retrieval_data
from idml_hf.embedding import embed_dataset
from idml_hf.evaluation import rank, retrieval_metrics
from idml_hf.files import write_json
from idml_hf.hub.card import write_model_card
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.image_sheet import retrieval_sheet
from idml_hf.index import IDMLIndex
from idml_hf.modeling_idml import IDMLModel
from idml_hf.training.models import build_model
from idml_hf.training.run import train
from idml_hf.training.settings import Run

from .searching import result_table

# share of wrong answers that the demo's index promises to stay below
ERROR_RATE = 0.1
COMMON: dict[str, Any] = {"dataset": "emoji-mini", "backbone": "tf_efficientnet_lite0", "embedding_dim": 128}
# Features that are good already need no training: a head fitted to them finds more, and sooner, than fine-tuning does.
FROM_PRETRAINED: dict[str, Any] = {"frozen_trunk": True, "image_size": 96, "batch_size": 64, "epochs": 20}
FROM_SCRATCH: dict[str, Any] = {
    "backbone": "test_resnet",
    "pretrained": False,
    "image_size": 48,
    "batch_size": 32,
    # an emoji and its mirror image, or a small part of it, may be another emoji
    "crop_scale": 0.6,
    "flip": 0.0,
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
    built = IDMLIndex.build(model, data.test, processor)
    _calibrate(built, console)
    built.save(output / "index", overwrite=True)
    index = IDMLIndex.load(output / "index")

    console.rule("3. Search")
    _draw_sheet(index, data.test, _varied_queries(index, 8), output / "retrieval_sheet.png")
    _show_answers(index, data.test, console)

    metrics |= {
        "untrained_recall_at_1": untrained,
        "pixels_recall_at_1": pixels,
        "seconds": time.monotonic() - started,
    }
    write_json(output / "metrics.json", metrics)
    write_model_card(output)
    return metrics


def _recall(embeddings: np.ndarray, test: ImageSet) -> float:
    return retrieval_metrics(embeddings, test.labels, groups=test.groups)["recall_at_1"]


def _pixel_recall(test: ImageSet) -> float:
    pixels = np.stack([test.tensor(i).numpy().ravel() for i in range(len(test))]).astype(np.float32)
    return _recall(pixels - pixels.mean(0), test)


def _calibrate(index: IDMLIndex, console: Console) -> None:
    """Learn from the index's own images when to say "not sure": the model has seen none of their classes."""
    try:
        calibration = index.calibrate(error_rate=ERROR_RATE, absent=0.0, progress=False)
    except ValueError as error:
        console.print(f"The index is not calibrated: {error}")
    else:
        console.print(calibration.describe())


def _show_answers(index: IDMLIndex, test: ImageSet, console: Console, number: int = 64) -> None:
    """Ask with some images that the index is made to forget, and print one it answers and one it does not."""
    queries = _varied_queries(index, number)
    embedded = index.gallery.semantic[queries], index.gallery.uncertainty_embeds[queries]
    index.remove(index.gallery.ids[queries])
    names = [f"{test.class_names[test.labels[query]]} ({test.image_id(query)})" for query in queries]
    entries = index.search_embeddings(*embedded, k=5, queries=names).to_dicts()
    kinds = {entry["abstained"]: entry for entry in reversed(entries)}
    for abstained in (None, False, True):
        if abstained in kinds:
            console.print(result_table(kinds[abstained], console.width))
    if kinds.keys() == {True}:
        console.print(f"None of {number} images is answered at a promised error of {100 * ERROR_RATE:g} %.")


def _varied_queries(index: IDMLIndex, number: int) -> list[int]:
    """Queries from the most certain to the least certain."""
    order = np.argsort(index.gallery.uncertainty, kind="stable")
    return [int(order[at]) for at in np.linspace(0, len(order) - 1, number).astype(int)]


def _draw_sheet(index: IDMLIndex, test: ImageSet, queries: list[int], path: Path) -> None:
    ranking = rank(index.gallery.semantic, test.labels, test.groups, keep=6)
    uncertainty = index.gallery.uncertainty
    sheet = retrieval_sheet(
        list(test), queries, ranking, test.labels, uncertainty=uncertainty, class_names=test.class_names
    )
    sheet.save(path)


__all__ = ["run_demo"]
