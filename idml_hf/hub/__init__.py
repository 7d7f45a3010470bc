"""Sharing models: model cards, pushing to the Hub, code for those without the package, ONNX."""

from __future__ import annotations

from .card import render_card, validate_card, write_model_card
from .record import RunRecord

__all__ = ["RunRecord", "render_card", "validate_card", "write_model_card"]
