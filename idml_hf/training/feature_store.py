"""Features of a frozen backbone in files: written in shards by one process or several, and read row by row.

A shard appears whole or not at all, so an interrupted run, started again, goes on with the shards that are missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file

from idml_hf.data import ImageSet, RowFiles, VectorSet
from idml_hf.data.vector_files import STORE_FILE as PLAN
from idml_hf.embedding_shards import images_sha256
from idml_hf.files import clear_writing_errors, read_json, replacing, write_json
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.model_reference import weights_sha256
from idml_hf.modeling_idml import IDMLModel
from idml_hf.processes import join_processes

from .frozen_trunk import FrozenFeatures, read_features

BACKBONE_FILE = "backbone.safetensors"
READ_BATCH = 120
"""Images that are read together unless told otherwise; a batch degrades its images with one another."""
SHARD_SIZE = 10_000
"""Images a file unless told otherwise."""
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """What `store_features` has written.

    Args:
        folder: where.
        plan: its `features.json`.
        splits: `train`, perhaps `validation`, and `test`, each the features of its images.
        degraded: features of training images degraded, and of the same images degraded more, `(M, F)` both; or None.
    """

    folder: Path
    plan: dict[str, Any]
    splits: dict[str, VectorSet]
    degraded: tuple[RowFiles, RowFiles] | None

    @classmethod
    def open(cls, folder: str | Path) -> FeatureStore:
        """The store in a folder.

        Raises:
            FileNotFoundError: if there is none, or a file of it is missing.
            ValueError: naming a file that is damaged, or if another edition of this package wrote it.
        """
        folder = Path(folder)
        plan = read_json(folder / PLAN)
        if plan.get("format") != _FORMAT:
            raise ValueError(f"{folder / PLAN} is of format {plan.get('format')}, and format {_FORMAT} is read")
        splits = {}
        for split in plan["splits"]:
            rows = RowFiles(_present(folder, _shards(plan, split)))
            (file,) = _present(folder, [f"{split}.parquet"])
            try:
                known = pq.read_table(file).combine_chunks()
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{file} is damaged: {str(error).splitlines()[0]}") from error
            if len(known) != len(rows) or known["label"].null_count:
                raise ValueError(f"{folder}: {file.name} has {len(known)} rows, the features {len(rows)}")
            groups = known["group"].to_numpy() if "group" in known.column_names else None
            splits[split] = VectorSet.of(
                rows,
                known["label"].to_numpy(),
                plan["splits"][split]["class_names"],
                ids=pa.concat_arrays(known["image"].chunks),
                groups=groups,
                group_column=plan["group_column"],
            )
        degraded = None
        if plan["degraded_share"]:
            views = ([name.replace(".npy", f".{view}.npy") for name in _shards(plan, "train")] for view in _VIEWS)
            less, more = (RowFiles(_present(folder, names)) for names in views)
            degraded = less, more
        return cls(folder, plan, splits, degraded)

    @property
    def train(self) -> FrozenFeatures:
        """What heads are fitted to."""
        images = self.splits["train"]
        return FrozenFeatures(images.vectors, self.degraded, images.labels, images.groups)


_VIEWS = ("less", "more")


def is_store(folder: str | Path) -> bool:
    """Whether a folder is one that `store_features` wrote to."""
    return (Path(folder) / PLAN).is_file()


def store_features(
    model: IDMLModel,
    processor: IDMLImageProcessor,
    splits: Mapping[str, ImageSet],
    folder: str | Path,
    *,
    group_column: str | None = None,
    degraded_share: float = 0.0,
    seed: int = 0,
    batch_size: int = READ_BATCH,
    num_workers: int = 0,
    shard_size: int = SHARD_SIZE,
    further: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> FeatureStore:
    """Run the backbone over images, as in evaluation, and keep in half precision what the heads read.

    All processes of `accelerate launch` share the work. Shards that are there are not made again.

    Args:
        model: Whose backbone, and whose `pool`; its weights are kept too, so that the store makes whole models.
        processor: Its image processor.
        splits: `train`, `validation`, `test` or some of them -> images.
        folder: Where to; on a disk that all processes see.
        group_column: What the groups of the images stand for.
        degraded_share: Share of the training images of which two degraded copies are read as well.
        seed: Seed of their degradation.
        batch_size: Images at a time.
        num_workers: Processes that decode, for each process.
        shard_size: Images a file, rounded up to whole batches.
        further: What else to keep in `features.json`.
        progress: Whether to show progress bars, in the first process.

    Raises:
        ValueError: if the folder holds features of other images, of another backbone, or made otherwise.
    """
    folder, state = Path(folder), join_processes()
    config = model.config
    plan = {
        "format": _FORMAT,
        **(further or {}),
        "group_column": group_column,
        "backbone": config.backbone,
        "backbone_kwargs": config.backbone_kwargs,
        "pool": config.pool,
        "image_size": config.image_size,
        "processor": processor.to_dict(),
        "backbone_sha256": weights_sha256(model.backbone),
        "seed": seed,
        "degraded_share": degraded_share,
        "batch_size": batch_size,
        # a batch degrades its images with one another, so that no batch may lie in two shards
        "shard_size": -(-shard_size // batch_size) * batch_size,
        "splits": {
            split: {
                "images": len(images),
                "images_sha256": images_sha256(images),
                "class_names": list(images.class_names),
            }
            for split, images in splits.items()
        },
    }
    if state.is_main_process:
        _begin(folder, plan, model, splits)
    state.wait_for_everyone()
    _check(folder, plan)
    work = [(split, number, name) for split in splits for number, name in enumerate(_shards(plan, split))]
    for split, number, name in work[state.process_index :: state.num_processes]:
        if (folder / name).exists():
            continue
        start = number * plan["shard_size"]
        images = splits[split].select(np.arange(start, min(len(splits[split]), start + plan["shard_size"])))
        part = read_features(
            model,
            processor,
            images,
            degraded_share=degraded_share if split == "train" else 0.0,
            seed=seed,
            first_batch=start // batch_size,
            batch_size=batch_size,
            num_workers=num_workers,
            title=f"Reading {name.removesuffix('.npy')}",
            progress=progress and state.is_main_process,
        )
        for view, rows in zip(_VIEWS, part.degraded or (), strict=False):
            _save(folder / name.replace(".npy", f".{view}.npy"), rows)
        # last, since it says that the shard is whole
        _save(folder / name, part.features)
    state.wait_for_everyone()
    return FeatureStore.open(folder)


def _shards(plan: Mapping[str, Any], split: str) -> list[str]:
    number = -(-plan["splits"][split]["images"] // plan["shard_size"])
    return [f"{split}-{shard:05}-of-{number:05}.npy" for shard in range(number)]


def _present(folder: Path, names: list[str]) -> list[Path]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(names)} files, as {missing[0]}: run the same command again"
        )
    return [folder / name for name in names]


def _save(path: Path, rows: np.ndarray) -> None:
    with replacing(path) as part:
        np.save(part, rows)


def _begin(folder: Path, plan: dict[str, Any], model: IDMLModel, splits: Mapping[str, ImageSet]) -> None:
    if (folder / PLAN).exists():
        return
    # what a run has left that was interrupted right here
    ours = {BACKBONE_FILE, *(f"{split}.parquet" for split in splits)}
    if folder.exists() and any(name not in ours and not name.startswith(".") for name in os.listdir(folder)):
        raise FileExistsError(f"{folder} holds something else already: choose another folder")
    weights = {name: x.detach().cpu().contiguous().clone() for name, x in model.backbone.state_dict().items()}
    with replacing(folder / BACKBONE_FILE) as part, clear_writing_errors(folder / BACKBONE_FILE):
        save_file(weights, part)
    for split, images in splits.items():
        columns: dict[str, Any] = {"image": images.ids, "label": images.labels}
        if images.groups is not None:
            columns["group"] = images.groups
        with replacing(folder / f"{split}.parquet") as part:
            pq.write_table(pa.table(columns), part)
    write_json(folder / PLAN, plan)


def _check(folder: Path, plan: dict[str, Any]) -> None:
    there = read_json(folder / PLAN)
    if there.get("backbone_sha256") != plan["backbone_sha256"]:
        raise ValueError(f"{folder} holds features of another backbone: choose another folder")
    if there.get("splits") != plan["splits"]:
        raise ValueError(f"{folder} holds features of other images: choose another folder")
    for key in ("pool", "processor", "seed", "degraded_share", "batch_size", "shard_size", "group_column"):
        if there.get(key) != _as_read(plan[key]):
            raise ValueError(f"{folder} holds features made with another {key}: choose another folder")


def _as_read(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


__all__ = ["BACKBONE_FILE", "READ_BATCH", "SHARD_SIZE", "FeatureStore", "is_store", "store_features"]
