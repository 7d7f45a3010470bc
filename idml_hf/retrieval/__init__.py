"""Embedding, exact search, and an index of images that knows when it may be wrong."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Embeddings": "embed",
    "IDMLIndex": "index",
    "IDMLMilvusIndex": "milvus",
    "IndexFileError": "storage",
    "ModelMismatchError": "model_reference",
    "SearchResult": "results",
    "embed_dataset": "embed",
    "embed_to_shards": "shards",
    "top_k": "topk",
}

__all__ = [
    "Embeddings",
    "IDMLIndex",
    "IDMLMilvusIndex",
    "IndexFileError",
    "ModelMismatchError",
    "SearchResult",
    "embed_dataset",
    "embed_to_shards",
    "top_k",
]

if TYPE_CHECKING:
    from .embed import Embeddings, embed_dataset
    from .index import IDMLIndex
    from .milvus import IDMLMilvusIndex
    from .model_reference import ModelMismatchError
    from .results import SearchResult
    from .shards import embed_to_shards
    from .storage import IndexFileError
    from .topk import top_k


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
