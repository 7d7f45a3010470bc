"""An index of images: build, save, load, search, and share it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "IDMLIndex": "index",
    "IDMLMilvusIndex": "milvus",
    "IndexFileError": "storage",
    "ModelMismatchError": "model_reference",
    "SearchResult": "results",
}

__all__ = ["IDMLIndex", "IDMLMilvusIndex", "IndexFileError", "ModelMismatchError", "SearchResult"]

if TYPE_CHECKING:
    from .index import IDMLIndex
    from .milvus import IDMLMilvusIndex
    from .model_reference import ModelMismatchError
    from .results import SearchResult
    from .storage import IndexFileError


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
