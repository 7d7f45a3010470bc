"""`idml-hf index --features` and `search --features`: collections of vectors instead of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idml_hf.index import IDMLIndex
from idml_hf.index.vector_files import embed_vectors
from idml_hf.model_reference import load_model

from .searching import open_to_search, show


def index_vectors(
    model: str,
    features: Path,
    *,
    split: str | None = None,
    calibrate: str | None = None,
    absent: float,
    group_column: str | None = None,
    engine: str = "flat",
) -> IDMLIndex:
    """Index vectors by a model that takes them, or what `idml-hf embed` wrote by the model that embedded it.

    Args:
        model: Folder or Hub id.
        features, split, group_column: As for [`idml_hf.index.vector_files.embed_vectors`].
        calibrate: Labelled vectors to calibrate with.
        absent: As for [`IDMLIndex.calibrate`].
        engine: As for [`IDMLIndex.use_engine`].

    Raises:
        FileNotFoundError, ValueError: naming the model or the file that cannot be read.
    """
    loaded = load_model(model)
    embedded = embed_vectors(loaded, features, split=split)
    rows, said = embedded.rows, embedded.embeddings
    index = IDMLIndex.from_embeddings(
        said.semantic,
        said.uncertainty_embeds,
        labels=rows.labels,
        class_names=rows.class_names,
        paths=rows.ids,
        model=loaded,
    )
    index.use_engine(engine)
    if calibrate is not None:
        index.calibrate(embed_vectors(loaded, calibrate, group_column=group_column).queries, absent=absent)
    return index


def search_vectors(
    index: Path,
    features: Path,
    *,
    top_k: int = 5,
    as_json: bool = False,
    output: Path | None = None,
    model: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    **options: Any,
) -> None:
    """Search an index with vectors, and print or write what is found.

    Args:
        index: Folder of the index.
        features: The vectors, as for [`idml_hf.index.vector_files.embed_vectors`].
        top_k, as_json, output, model, where: As for [`idml_hf.cli.searching.search_index`].
        options: `metric` and `error_rate` of [`IDMLIndex.search_embeddings`].

    Raises:
        FileNotFoundError, ValueError: naming the index, model or file that cannot be read.
    """
    opened, wanted = open_to_search(index, model, where, output)
    asked = embed_vectors(opened.model, features, progress=False)
    said, names = asked.embeddings, asked.rows.ids.to_pylist()
    found = opened.search_embeddings(
        said.semantic, said.uncertainty_embeds, top_k, queries=names, where=wanted, **options
    )
    show(found, as_json, output)


__all__ = ["index_vectors", "search_vectors"]
