"""Vectors in files, as a collection to put into an index, to calibrate it with, or to search it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idml_hf.confidence.labelled_queries import LabelledQueries
from idml_hf.data import VectorSet, load_vectors
from idml_hf.embedding import Embeddings, embed_dataset
from idml_hf.modeling_idml import IDMLModel

from .calibration_images import labelled_queries


@dataclass(frozen=True, eq=False)
class EmbeddedVectors:
    """What a model says of the rows of a file.

    Args:
        rows: the rows, with their labels.
        embeddings: of the rows, in order.
    """

    rows: VectorSet
    embeddings: Embeddings

    @property
    def queries(self) -> LabelledQueries:
        """The rows whose class is known.

        Raises:
            ValueError: if no class is known.
        """
        return labelled_queries(self.embeddings, self.rows)


def embed_vectors(
    model: IDMLModel,
    path: str | Path,
    *,
    labels: str | Path | None = None,
    split: str | None = None,
    group_column: str | None = None,
    progress: bool = True,
) -> EmbeddedVectors:
    """Embed vectors by a model that takes them; for a model of images, read what it has said of them already.

    Args:
        model: the model. If it takes images, the file must be one that `idml-hf embed` wrote with it.
        path: what [`~idml_hf.data.load_vectors`] takes.
        labels: classes of the rows of a `.npy` file.
        split: `train`, `validation` or `test` where the folder has such files; by default `test`.
        group_column: column of groups.
        progress: whether to show a progress bar.

    Raises:
        FileNotFoundError, ValueError: naming the file that is missing, damaged, or of another model.
    """
    splits = load_vectors(path, labels, group_column)
    chosen = "all" if "all" in splits and split in (None, "all") else split or "test"
    if chosen not in splits:
        raise ValueError(f"{path} has no {chosen} vectors; it has {', '.join(splits)}")
    rows = splits[chosen]
    if model.config.takes_vectors:
        width = model.config.backbone_kwargs["width"]
        if rows.width != width:
            raise ValueError(f"{path} has vectors of {rows.width} values, and the model takes {width}")
        return EmbeddedVectors(rows, embed_dataset(model, None, rows, progress=progress))
    return EmbeddedVectors(rows, _said(model, Path(path), rows))


def _said(model: IDMLModel, path: Path, rows: VectorSet) -> Embeddings:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    names = ("semantic", "uncertainty_embeds", "uncertainty", "semantic_norm")
    known = [pq.read_schema(file).names for file in files if file.suffix == ".parquet"]
    if len(known) != len(files) or any(name not in columns for name in names for columns in known):
        raise ValueError(f"the model takes images: {path} should be what `idml-hf embed` wrote, or give a data set")
    table = pa.concat_tables([pq.read_table(file, columns=list(names)) for file in files]).combine_chunks()
    semantic, embeds = (np.stack(table[name].to_numpy()) for name in names[:2])
    if len(semantic) != len(rows) or semantic.shape[1] != model.config.embedding_dim:
        raise ValueError(
            f"{path} has embeddings of {semantic.shape[1]} values, and those of the model have "
            f"{model.config.embedding_dim}"
        )
    return Embeddings(semantic, embeds, *(table[name].to_numpy() for name in names[2:]))


__all__ = ["EmbeddedVectors", "embed_vectors"]
