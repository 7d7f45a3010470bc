"""Training with the Hugging Face Trainer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# The settings of a run are needed by `idml-hf train --help`, long before torch is. Name -> module, and name in it.
_PUBLIC = {
    "ClassificationArguments": ("arguments", "ClassificationArguments"),
    "ClassificationTrainer": ("trainer", "ClassificationTrainer"),
    "IDMLTrainer": ("trainer", "IDMLTrainer"),
    "IDMLTrainingArguments": ("arguments", "IDMLTrainingArguments"),
    "Run": ("settings", "Run"),
    "load_recipe": ("recipes", "load_recipe"),
    "train": ("run", "train"),
    # as the first edition called them
    "RetrievalRun": ("settings", "Run"),
    "train_retrieval": ("run", "train"),
}

__all__ = [
    "ClassificationArguments",
    "ClassificationTrainer",
    "IDMLTrainer",
    "IDMLTrainingArguments",
    "RetrievalRun",
    "Run",
    "load_recipe",
    "train",
    "train_retrieval",
]

if TYPE_CHECKING:
    from .arguments import ClassificationArguments, IDMLTrainingArguments
    from .recipes import load_recipe
    from .run import train
    from .run import train as train_retrieval
    from .settings import Run
    from .settings import Run as RetrievalRun
    from .trainer import ClassificationTrainer, IDMLTrainer


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f".{module}", __name__), attribute)
