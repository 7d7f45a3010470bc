"""`idml-hf embed`: embeddings as files that data frames, vector stores and NumPy read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from idml_hf.data import ImageSet
from idml_hf.embedding import embed_dataset
from idml_hf.embedding_shards import embedding_table
from idml_hf.files import replacing
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel
from idml_hf.table_files import write_table

VECTORS = ("semantic", "uncertainty_embeds")


def embed_to_file(model: str, images: ImageSet, output: Path, format: str = "parquet", **options: Any) -> Path:
    """Embed images and write `embeddings.parquet` or `embeddings.csv` into `output`.

    Its columns: `image` (path, or name in its source), `label` (-1 where unknown), `class`, `semantic` and
    `uncertainty_embeds` (float32, lists of fixed size; in CSV a column for each number), `uncertainty`,
    `semantic_norm`. As `npy`, the vectors are in `semantic.npy` (N, d) and `uncertainty_embeds.npy` (N, d_u), and the
    other columns in `images.csv`.

    Args:
        model: Folder or Hub id.
        images: What to embed.
        output: Folder.
        format: `"parquet"`, `"csv"` or `"npy"`.
        options: Those of [`idml_hf.embedding.embed_dataset`].

    Returns:
        The file with the semantic embeddings.
    """
    processor = IDMLImageProcessor.from_pretrained(model)
    embeddings = embed_dataset(IDMLModel.from_pretrained(model), processor, images, **options)
    table = embedding_table(embeddings, images)
    if format != "npy":
        file = output / f"embeddings.{format}"
        write_table(file, table)
        return file
    for name in VECTORS:
        with replacing(output / f"{name}.npy") as part:
            np.save(part, getattr(embeddings, name), allow_pickle=False)
    write_table(output / "images.csv", table.drop_columns(list(VECTORS)))
    return output / "semantic.npy"


__all__ = ["embed_to_file"]
