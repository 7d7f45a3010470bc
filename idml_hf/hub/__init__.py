"""Sharing models: model cards, pushing to the Hub, and code for those without the package."""

from __future__ import annotations

from .card import render_card, validate_card, write_model_card
from .push import collect_files, push_folder, push_model
from .record import RunRecord
from .saved_folder import complete_saved_folder
from .sentence_transformers_config import sentence_transformers_files
from .trained_on import TrainedOn
from .trainer_card import write_trainer_card

__all__ = [
    "RunRecord",
    "TrainedOn",
    "collect_files",
    "complete_saved_folder",
    "push_folder",
    "push_model",
    "render_card",
    "sentence_transformers_files",
    "validate_card",
    "write_model_card",
    "write_trainer_card",
]
