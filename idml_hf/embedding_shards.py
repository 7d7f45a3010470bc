"""Embedding of collections too large for one run or one machine: parquet files that several processes write.

Run by `accelerate launch`, each process embeds every n-th shard. A shard appears whole or not at all, so an
interrupted run, started again with any number of processes, goes on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .data import ImageSet
from .embedding import Embeddings, embed_dataset
from .files import read_json, replacing, write_json
from .image_processing_idml import IDMLImageProcessor
from .model_reference import ModelReference, load_model
from .modeling_idml import IDMLPreTrainedModel
from .processes import join_processes

PLAN = "embeddings.json"


@dataclass(frozen=True)
class EmbeddedImages:
    """What `embed_to_shards` has written of N images.

    Args:
        embeddings: of the images, in order.
        labels: int64 (N,), -1 where the class is unknown.
        class_names: name of each label.
        paths: string array (N,), path of each image, or its name in its source.
        model: the model that embedded them.
        tau: its temperature.
        processor: its image processor.
    """

    embeddings: Embeddings
    labels: np.ndarray
    class_names: tuple[str, ...]
    paths: pa.StringArray
    model: ModelReference
    tau: float
    processor: IDMLImageProcessor


def embed_to_shards(
    model: IDMLPreTrainedModel | str | Path,
    images: ImageSet,
    folder: str | Path,
    processor: IDMLImageProcessor | None = None,
    *,
    shard_size: int = 10_000,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = True,
) -> list[Path]:
    """Embed images into parquet files of `shard_size` rows each, skipping those that are there.

    Columns: `image` (path, or name in its source), `label` (-1 where unknown), `class`, `semantic` and
    `uncertainty_embeds` (lists of float32), `uncertainty`, `semantic_norm`.

    Args:
        model: the model, its folder or its Hub id.
        images: what to embed; all processes need the same.
        folder: where to; on a disk that all processes see.
        processor: the model's image processor; default: the one saved with it.
        shard_size: images a file.
        batch_size: images at a time.
        num_workers: processes that decode, for each process.
        progress: whether to show progress bars, in the first process.

    Returns:
        All files, once every process has written its own.

    Raises:
        ValueError: if there are no images, or the folder holds embeddings of other images or of another model.
        RuntimeError: if several processes were launched that do not know of each other.
    """
    if not len(images):
        raise ValueError("There are no images to embed")
    state, folder = join_processes(), Path(folder).absolute()
    source, model = model, load_model(model)
    processor = processor or IDMLImageProcessor.for_model(model)
    plan = {
        "images": len(images),
        "images_sha256": images_sha256(images),
        "shard_size": shard_size,
        "model": ModelReference.of(model, source).relative_to(folder),
        "tau": model.config.tau,
        "processor": processor.to_dict(),
        "class_names": list(images.class_names),
    }
    if state.is_main_process:
        _write_plan(folder, plan)
    state.wait_for_everyone()
    _check_plan(folder, plan)
    files = shard_files(folder, plan)
    for number in range(state.process_index, len(files), state.num_processes):
        if not files[number].exists():
            part = images.select(np.arange(number * shard_size, min(len(images), (number + 1) * shard_size)))
            shown = progress and state.is_main_process
            embeddings = embed_dataset(model, processor, part, batch_size, state.device, num_workers, shown)
            with replacing(files[number]) as path:
                pq.write_table(embedding_table(embeddings, part), path)
    state.wait_for_everyone()
    return files


def read_shards(folder: str | Path) -> EmbeddedImages:
    """What `embed_to_shards` has written.

    Raises:
        FileNotFoundError: if there is no plan, or shards are missing.
        ValueError: naming a file that is damaged.
    """
    folder = Path(folder).absolute()
    if not (folder / PLAN).exists():
        raise FileNotFoundError(f"{folder} holds no embeddings: there is no {PLAN}")
    plan = read_json(folder / PLAN)
    files = shard_files(folder, plan)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(files)} shards, as {missing[0]}: run the same command again"
        )
    table = pa.concat_tables([_read(file) for file in files]).combine_chunks()
    columns = _matrix(table["semantic"]), _matrix(table["uncertainty_embeds"])
    norms = (table[name].to_numpy() for name in ("uncertainty", "semantic_norm"))
    return EmbeddedImages(
        Embeddings(*columns, *norms),
        table["label"].to_numpy(),
        tuple(plan["class_names"]),
        pa.concat_arrays(table["image"].chunks),
        ModelReference.from_json(plan["model"], folder),
        plan["tau"],
        IDMLImageProcessor.from_dict(plan["processor"]),
    )


def shard_files(folder: Path, plan: dict[str, Any]) -> list[Path]:
    """The files of a plan, in order."""
    number = -(-plan["images"] // plan["shard_size"])
    return [folder / f"embeddings-{shard:05}-of-{number:05}.parquet" for shard in range(number)]


def embedding_table(embeddings: Embeddings, images: ImageSet) -> pa.Table:
    """Images and their embeddings as a table, with the columns that `embed_to_shards` describes."""
    names = [images.class_names[label] if label >= 0 else "" for label in images.labels]
    return pa.table(
        {
            "image": images.ids,
            "label": images.labels,
            "class": names,
            "semantic": _lists(embeddings.semantic),
            "uncertainty_embeds": _lists(embeddings.uncertainty_embeds),
            "uncertainty": embeddings.uncertainty,
            "semantic_norm": embeddings.semantic_norm,
        }
    )


def _lists(matrix: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _read(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is damaged ({reason}): remove it and run the same command again") from error


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate(
        [chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in column.chunks if len(chunk)]
    )


def images_sha256(images: ImageSet) -> str:
    """Hash of the names and the labels of images, by which one collection is told from another."""
    digest = hashlib.sha256(images.labels.tobytes())
    for name in images.ids.to_pylist():
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()


def _write_plan(folder: Path, plan: dict[str, Any]) -> None:
    if not (folder / PLAN).exists():
        write_json(folder / PLAN, plan, indent=1)


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    there = read_json(folder / PLAN)
    if there["model"]["weights_sha256"] != plan["model"]["weights_sha256"]:
        raise ValueError(f"{folder} holds embeddings of another model: choose another folder")
    for key in ("images", "images_sha256", "shard_size"):
        if there[key] != plan[key]:
            raise ValueError(f"{folder} holds embeddings of other images, or in shards of another size")


__all__ = ["EmbeddedImages", "embed_to_shards", "embedding_table", "images_sha256", "read_shards", "shard_files"]
