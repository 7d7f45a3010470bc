"""Nearest neighbours in arrays of embeddings."""

from .exact import top_k
from .neighbours import nearest

__all__ = ["nearest", "top_k"]
