"""Training with the Hugging Face Trainer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# The settings of a run are needed by `idml-hf --help`, long before torch is.
_PUBLIC = {
    "IDMLTrainer": "trainer",
    "IDMLTrainingArguments": "arguments",
    "RetrievalRun": "recipe",
    "load_recipe": "recipe",
    "train_retrieval": "run",
}

__all__ = ["IDMLTrainer", "IDMLTrainingArguments", "RetrievalRun", "load_recipe", "train_retrieval"]

if TYPE_CHECKING:
    from .arguments import IDMLTrainingArguments
    from .recipe import RetrievalRun, load_recipe
    from .run import train_retrieval
    from .trainer import IDMLTrainer


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
