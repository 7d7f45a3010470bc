"""Introspective deep metric learning for Hugging Face: image embeddings that know when they may be wrong."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._auto_classes import register_auto_classes

__version__ = "0.1.0"

_PUBLIC = {
    "IDMLConfig": "configuration_idml",
    "IDMLModel": "modeling_idml",
    "IDMLForImageClassification": "modeling_idml",
    "IDMLForMetricLearning": "modeling_metric_learning",
    "IDMLImageProcessor": "image_processing_idml",
    "IDMLTrainer": "training",
    "IDMLTrainingArguments": "training",
    "IDMLIndex": "index",
    "audit": "audit",
}

__all__ = [
    "IDMLConfig",
    "IDMLForImageClassification",
    "IDMLForMetricLearning",
    "IDMLImageProcessor",
    "IDMLIndex",
    "IDMLModel",
    "IDMLTrainer",
    "IDMLTrainingArguments",
    "audit",
]

if TYPE_CHECKING:
    from .audit import audit
    from .configuration_idml import IDMLConfig
    from .image_processing_idml import IDMLImageProcessor
    from .index import IDMLIndex
    from .modeling_idml import IDMLForImageClassification, IDMLModel
    from .modeling_metric_learning import IDMLForMetricLearning
    from .training import IDMLTrainer, IDMLTrainingArguments


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


register_auto_classes()
