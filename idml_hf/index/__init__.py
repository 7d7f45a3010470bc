"""An index of images: build, save, load, search, and share it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "IDMLIndex": "idml_hf.index.index",
    "IDMLMilvusIndex": "idml_hf.index.milvus",
    "IndexFileError": "idml_hf.index_files",
    "ModelMismatchError": "idml_hf.model_reference",
    "SearchResult": "idml_hf.index.results",
}

__all__ = ["IDMLIndex", "IDMLMilvusIndex", "IndexFileError", "ModelMismatchError", "SearchResult"]

if TYPE_CHECKING:
    from idml_hf.index_files import IndexFileError
    from idml_hf.model_reference import ModelMismatchError

    from .index import IDMLIndex
    from .milvus import IDMLMilvusIndex
    from .results import SearchResult


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
