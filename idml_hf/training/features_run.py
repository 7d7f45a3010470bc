"""`idml-hf features`: from the settings of a run to the stored features that such a run is fitted to."""

from __future__ import annotations

from pathlib import Path

from transformers import set_seed

from .arguments import IDMLTrainingArguments
from .feature_store import READ_BATCH, SHARD_SIZE, FeatureStore, store_features
from .models import build_model
from .settings import Run
from .tasks import TASKS


def make_features(
    run: Run, shard_size: int = SHARD_SIZE, batch_size: int = READ_BATCH, progress: bool = True
) -> FeatureStore:
    """Store what the backbone of a run says of its training and test images, in `run.output`.

    A run on the store, with the same seed, ends with the weights that the run itself ends with, if `batch_size` is
    left alone.

    Args:
        run: The settings, of which those of the backbone and of the data count.
        shard_size: Images a file.
        batch_size: Images at a time, on which the degraded copies depend.
        progress: Whether to show progress bars.

    Raises:
        ValueError, OSError: if data or weights cannot be had, or the folder holds other features.
    """
    data = TASKS[run.task].load(run)
    set_seed(run.seed)
    model, processor, trunk_weights = build_model(run, data.train.class_names)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    dataset = Path(data.name)
    return store_features(
        model.idml,
        processor,
        {split: images for split, images in splits.items() if images is not None},
        run.output,
        group_column=data.group_column,
        degraded_share=IDMLTrainingArguments.degraded_share,
        seed=run.seed,
        batch_size=batch_size,
        num_workers=run.workers,
        shard_size=shard_size,
        further={
            "dataset": dataset.name if dataset.exists() else data.name,
            "crop_pct": run.crop_pct,
            "trunk_weights": trunk_weights,
        },
        progress=progress,
    )


__all__ = ["make_features"]
