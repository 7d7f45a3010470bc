"""What an evaluation was computed from, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from .ranking import Ranking
from .report import write_report


class EmbeddedImages(Protocol):
    """What is measured of N images: any object with these arrays, as [`idml_hf.embedding.Embeddings`] is."""

    @property
    def semantic(self) -> np.ndarray:
        """`(N, d)` semantic embeddings."""

    @property
    def uncertainty_embeds(self) -> np.ndarray:
        """`(N, d_u)` uncertainty embeddings."""

    @property
    def uncertainty(self) -> np.ndarray:
        """`(N,)` one number an image, larger is less certain."""

    @property
    def semantic_norm(self) -> np.ndarray:
        """`(N,)` norm of the semantic embedding before normalisation."""


Embed: TypeAlias = Callable[[Any], EmbeddedImages]
"""Embeds a sequence of PIL images."""


@dataclass(frozen=True)
class Evaluation:
    """A flat dictionary of metrics, ready for JSON, with what it was computed from (for reports and plots)."""

    metrics: dict[str, Any]
    ranking: Ranking
    embeddings: EmbeddedImages
    labels: np.ndarray
    groups: np.ndarray | None = None

    def report(self, images: Any, path: str | Path, title: str = "Retrieval and uncertainty") -> Path:
        """Write the HTML report of the evaluated images; see `idml_hf.evaluation.report.write_report`."""
        return write_report(self, images, path, title=title)
