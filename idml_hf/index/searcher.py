"""From embedded queries to matches, and to a verdict on the first of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from idml_hf.confidence.calibration import Calibration
from idml_hf.confidence.collection import Collection
from idml_hf.confidence.features import DEPTH, Matches, MatchInputs, match_inputs
from idml_hf.confidence.labelled_queries import LabelledQueries, Outcomes, judge_against
from idml_hf.errors import one_of
from idml_hf.search import nearest
from idml_hf.search.approximate import ApproximateSearch
from idml_hf.search.arrays import as_count, finite_rows, unit_rows

from .gallery import Gallery
from .metadata import values_at
from .results import SearchResult

METRICS = ("cosine", "introspective")

logger = logging.getLogger("idml_hf.index")


@dataclass(frozen=True, eq=False)
class Searcher:
    """A gallery and how to search it.

    Args:
        gallery: N images.
        engine: what proposes items; None compares all.
        tau: temperature of the introspective metric.
        device: where to compare.
        calibration: how to judge first matches, or None.
        known_collection: what the confidence knows of the gallery, if that is known.
        cohort: images of other classes, as for [`~idml_hf.confidence.collection.Collection`].
    """

    gallery: Gallery
    engine: ApproximateSearch | None
    tau: float
    device: torch.device
    calibration: Calibration | None = None
    known_collection: Collection | None = None
    cohort: np.ndarray | None = None

    @cached_property
    def collection(self) -> Collection:
        """What the confidence knows of the gallery."""
        gallery = self.gallery
        if self.known_collection is not None:
            return self.known_collection
        return Collection(gallery.semantic, gallery.uncertainty, gallery.labels, self.cohort)

    def search(
        self,
        semantic: Any,
        uncertainty_embeds: Any,
        k: int,
        metric: str,
        error_rate: float | None,
        queries: Sequence[str],
    ) -> SearchResult:
        """See [`IDMLIndex.search_embeddings`]."""
        one_of("metric", metric, METRICS)
        semantic, uncertainty_embeds = self._check_queries(semantic, uncertainty_embeds)
        k = self._check_k(k)
        calibration = self.calibration
        if calibration is not None and calibration.metric != metric:
            calibration = None
        if error_rate is not None and calibration is None:
            raise ValueError(f"the index is not calibrated for {metric} search: it can promise no error rate")
        matches = self._matches(semantic, uncertainty_embeds, k if calibration is None else max(k, DEPTH), metric)
        verdict = None
        if calibration is not None:
            inputs = self._inputs(semantic, uncertainty_embeds, matches, calibration)
            verdict = calibration.predict(inputs, error_rate)
        return self._result(
            matches.best(k),
            uncertainty_embeds,
            metric=metric,
            queries=tuple(queries),
            verdict=verdict,
            rivals=() if verdict is None else tuple(self.gallery.name_of(rival) for rival in verdict.rivals.tolist()),
        )

    def judge(self, queries: LabelledQueries, metric: str) -> Outcomes:
        """The first matches in the gallery of queries that it does not hold; classes are matched by their names."""
        gallery = self.gallery
        names = {name: label for label, name in enumerate(gallery.class_names)}
        base = max(len(names), int(gallery.labels.max(initial=-1)) + 1)
        numbers = [names.get(name, base + at) for at, name in enumerate(queries.class_names)]
        labels = np.array(numbers, dtype=np.int64)[queries.labels]
        semantic, uncertainty_embeds = self._check_queries(queries.semantic, queries.uncertainty_embeds)

        def search(rows: np.ndarray, k: int, exclude: Any) -> Matches:
            return self._matches(semantic[rows], uncertainty_embeds[rows], k, metric, exclude)

        uncertainty = np.linalg.norm(uncertainty_embeds, axis=1)
        return judge_against(self.collection, semantic, uncertainty, labels, search)

    def _check_queries(self, semantic: Any, uncertainty_embeds: Any) -> tuple[np.ndarray, np.ndarray]:
        semantic = unit_rows(semantic, "query embeddings")
        gallery = self.gallery
        if uncertainty_embeds is None:
            uncertainty_embeds = np.zeros((len(semantic), gallery.uncertainty_embeds.shape[1]), dtype=np.float32)
        uncertainty_embeds = finite_rows(uncertainty_embeds, "uncertainty embeddings of the queries", len(semantic))
        for what, mine, others in (
            ("embeddings", gallery.semantic, semantic),
            ("uncertainty embeddings", gallery.uncertainty_embeds, uncertainty_embeds),
        ):
            if mine.shape[1] != others.shape[1]:
                raise ValueError(
                    f"{what} of the queries have {others.shape[1]} dimensions, those of the index {mine.shape[1]}: "
                    "they come from another model"
                )
        return semantic, uncertainty_embeds

    def _check_k(self, k: int) -> int:
        k, number = as_count(k, "k"), len(self.gallery)
        if not number:
            raise ValueError("the index is empty")
        if k > number:
            logger.warning("the index holds %d images, so there are no %d matches", number, k)
        return min(k, number)

    def _matches(
        self, semantic: np.ndarray, uncertainty_embeds: np.ndarray, depth: int, metric: str, exclude: Any = None
    ) -> Matches:
        gallery, engine = self.gallery, self.engine
        depth = min(depth, len(gallery))
        doubts: dict[str, Any] = {}
        if metric == "introspective":
            doubts = {"uncertainty": uncertainty_embeds, "gallery_uncertainty": gallery.uncertainty_embeds}
            doubts["tau"] = self.tau
        if engine is not None and engine.is_ready and len(semantic) and exclude is None:
            return Matches(*engine.nearest(semantic, gallery.semantic, depth, **doubts))
        options = {"device": self.device, "are_unit_rows": True, "exclude": exclude, **doubts}
        return Matches(*nearest(semantic, gallery.semantic, depth, metric, **options))

    def _inputs(
        self, semantic: np.ndarray, uncertainty_embeds: np.ndarray, matches: Matches, calibration: Calibration
    ) -> MatchInputs:
        gallery = self.gallery

        def search(positions: np.ndarray) -> Matches:
            rows = gallery.semantic[positions], gallery.uncertainty_embeds[positions]
            return self._matches(*rows, DEPTH, calibration.metric)

        uncertainty = np.linalg.norm(uncertainty_embeds, axis=1)
        return match_inputs(self.collection, semantic, uncertainty, matches, use=calibration.signals, search=search)

    def _result(self, matches: Matches, uncertainty_embeds: np.ndarray, **fields: Any) -> SearchResult:
        gallery, positions = self.gallery, matches.positions
        empty = positions < 0
        labels = np.where(empty, -1, gallery.labels[positions])
        match_uncertainty = gallery.uncertainty[positions]
        return SearchResult(
            ids=np.where(empty, -1, gallery.ids[positions]),
            scores=matches.scores,
            labels=labels,
            names=gallery.names_of(labels),
            paths=np.array(gallery.paths.take(pa.array(positions.ravel().clip(min=0)))).reshape(positions.shape),
            match_uncertainty=np.where(empty, np.float32(np.nan), match_uncertainty),
            uncertainty=np.linalg.norm(uncertainty_embeds, axis=1),
            metadata={name: values_at(column, positions) for name, column in gallery.metadata.items()},
            **fields,
        )


__all__ = ["Searcher"]
