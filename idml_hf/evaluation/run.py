"""The evaluation of a model on a data set, from their names to a folder of results."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from idml_hf.data import load_images
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel

from .evaluator import RetrievalEvaluator


def evaluate_model(
    model: str | Path,
    dataset: str | Path,
    output: str | Path,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
    split: str = "test",
    skip_bad_images: bool = False,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a model on a data set; write `metrics.json` and `report.html`.

    Args:
        model: Folder or Hub id.
        dataset: Name, folder or Hub id.
        output: Folder to write.
        root: Where a named data set lies on disk.
        group_column: Column of groups, as for [`idml_hf.data.load_retrieval_data`].
        split: `train`, `validation`, `test` or `all`.
        skip_bad_images: Go on without the images that cannot be read.
        batch_size: Images at a time.
        num_workers: Processes that decode.
        progress: Whether to show progress bars.

    Returns:
        The metrics.

    Raises:
        ValueError, FileNotFoundError: if the model or the data cannot be read, or the images have no classes.
    """
    started = time.monotonic()
    loaded = IDMLModel.from_pretrained(model)
    processor = IDMLImageProcessor.from_pretrained(model)
    images = load_images(dataset, split, root=root, group_column=group_column, skip_bad_images=skip_bad_images)
    if not images.num_classes:
        raise ValueError(f"{dataset} has no classes, so there is nothing to evaluate by")
    evaluator = RetrievalEvaluator(group_column=images.group_column, clustering=True)
    evaluation = evaluator.evaluate(
        loaded, processor, images, batch_size=batch_size, num_workers=num_workers, progress=progress
    )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    evaluation.report(images, output / "report.html", title=f"{model} on {dataset}")
    metrics = {
        "dataset": str(dataset),
        "split": split,
        "model": str(model),
        **evaluation.metrics,
        "seconds": time.monotonic() - started,
    }
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    return metrics


__all__ = ["evaluate_model"]
