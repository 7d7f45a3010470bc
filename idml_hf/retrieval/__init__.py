"""The names that moved to `idml_hf.embedding`, `idml_hf.search` and `idml_hf.index`; kept for one release.

Spaces that were pushed earlier import from here.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_MOVED = {
    "Embeddings": "idml_hf.embedding",
    "IDMLIndex": "idml_hf.index",
    "IDMLMilvusIndex": "idml_hf.index",
    "IndexFileError": "idml_hf.index",
    "ModelMismatchError": "idml_hf.index",
    "SearchResult": "idml_hf.index",
    "embed_dataset": "idml_hf.embedding",
    "embed_to_shards": "idml_hf.embedding_shards",
    "top_k": "idml_hf.search",
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{name} has moved to {_MOVED[name]}", FutureWarning, stacklevel=2)
    return getattr(importlib.import_module(_MOVED[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MOVED])
