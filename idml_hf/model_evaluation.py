"""Evaluate a model on a data set: the model embeds, `idml_hf.evaluation` measures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas

from .data import load_images
from .embedding import Embeddings, embed_dataset, run_model
from .evaluation import Evaluation, RetrievalEvaluator
from .evaluation.classification import classification_metrics
from .evaluation.evaluator import json_ready
from .files import replacing, write_json
from .image_processing_idml import IDMLImageProcessor
from .modeling_idml import IDMLModel


def evaluate_images(
    model: IDMLModel,
    processor: IDMLImageProcessor | None,
    images: Any,
    *,
    evaluator: RetrievalEvaluator | None = None,
    ood_images: Any = None,
    **embedding: Any,
) -> Evaluation:
    """Embed labelled images and measure retrieval and uncertainty.

    Args:
        model: The model.
        processor: Its image processor; None for a model of vectors.
        images: An [`idml_hf.data.ImageSet`] with classes, or for a model of vectors an [`idml_hf.data.VectorSet`].
        evaluator: What to measure; by default retrieval, uncertainty and robustness.
        ood_images: Images of another domain, to be told apart by their uncertainty.
        **embedding: `batch_size`, `device`, `num_workers`, `progress` of [`idml_hf.embedding.embed_dataset`].

    Raises:
        ValueError: for images without a class, and as [`idml_hf.evaluation.RetrievalEvaluator`].
    """

    def embed(some: Any) -> Embeddings:
        return embed_dataset(model, processor, some, **embedding)

    evaluator = evaluator or RetrievalEvaluator()
    return evaluator.evaluate_images(embed, images, ood_images=ood_images, side=_input_side(processor))


def evaluate_classifier(model: Any, processor: Any, dataset: Any, **options: Any) -> dict[str, float | bool | None]:
    """Classify all images of a data set and measure the result.

    Args:
        model: An `IDMLForImageClassification`, or any whose output has `logits` and `uncertainty`.
        processor: Its image processor.
        dataset: An `idml_hf.data.ImageSet` with labels.
        **options: `batch_size`, `device`, `num_workers`, `progress` of [`idml_hf.embedding.run_model`].

    Returns:
        `classification_metrics`, with `uncertainty_mean` and `uncertainty_std`. What is undefined is `None`, since
        JSON has no NaN.
    """
    logits, uncertainty = run_model(model, processor, dataset, ("logits", "uncertainty"), "Classifying", **options)
    spread = {"uncertainty_mean": float(uncertainty.mean()), "uncertainty_std": float(uncertainty.std())}
    metrics = classification_metrics(logits, dataset.labels, uncertainty) | spread
    return json_ready(metrics)


def evaluate_model(
    model: str | Path,
    dataset: str | Path,
    output: str | Path,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
    split: str = "test",
    foreign: str | Path | None = None,
    skip_bad_images: bool = False,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a saved model on a named data set; write `metrics.json`, `classes.csv` and `report.html`.

    Args:
        model: Folder or Hub id.
        dataset: Name, folder or Hub id.
        output: Folder to write.
        root: Where a named data set lies on disk.
        group_column: Column of groups, as for [`idml_hf.data.load_retrieval_data`].
        split: `train`, `validation`, `test` or `all`.
        foreign: Data set of another kind, whose images should be told from those that belong.
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
    others = None if foreign is None else load_images(foreign, None, skip_bad_images=skip_bad_images)
    evaluator = RetrievalEvaluator(group_column=images.group_column, clustering=True)
    evaluation = evaluate_images(
        loaded,
        processor,
        images,
        evaluator=evaluator,
        ood_images=others,
        batch_size=batch_size,
        num_workers=num_workers,
        progress=progress,
    )
    output = Path(output)
    evaluation.report(images, output / "report.html", title=f"{model} on {dataset}")
    classes = pandas.DataFrame(evaluation.ranking.by_class())
    classes.insert(1, "name", [images.class_names[label] for label in classes["label"]])
    with replacing(output / "classes.csv") as part:
        classes.to_csv(part, index=False)
    metrics = {
        "dataset": str(dataset),
        "split": split,
        "model": str(model),
        **evaluation.metrics,
        "seconds": time.monotonic() - started,
    }
    write_json(output / "metrics.json", metrics)
    return metrics


def _input_side(processor: IDMLImageProcessor | None) -> int | None:
    """The shorter side in pixels that the processor resizes to."""
    if processor is None:
        return None
    sides = [side for side in dict(processor.size or {}).values() if side]
    return min(sides) if sides else None


__all__ = ["evaluate_classifier", "evaluate_images", "evaluate_model"]
