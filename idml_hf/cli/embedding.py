"""`idml-hf embed`: embeddings as a parquet file, which `datasets` and every data frame library read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from idml_hf.data import ImageSet
from idml_hf.embedding import embed_dataset
from idml_hf.embedding_shards import embedding_table
from idml_hf.files import replacing
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel


def embed_to_parquet(model: str, images: ImageSet, output: Path, **options: Any) -> Path:
    """Embed images and write `embeddings.parquet` into `output`.

    Its columns: `image` (path, or name in its source), `label` (-1 where unknown), `class`, `semantic` and
    `uncertainty_embeds` (lists of float32), `uncertainty`, `semantic_norm`.

    Args:
        model: Folder or Hub id.
        images: What to embed.
        output: Folder.
        options: Those of [`idml_hf.embedding.embed_dataset`].

    Returns:
        The file.
    """
    processor = IDMLImageProcessor.from_pretrained(model)
    embeddings = embed_dataset(IDMLModel.from_pretrained(model), processor, images, **options)
    file = output / "embeddings.parquet"
    with replacing(file) as part:
        pq.write_table(embedding_table(embeddings, images), part)
    return file


__all__ = ["embed_to_parquet"]
