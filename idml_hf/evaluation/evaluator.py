"""One evaluator for the Trainer, the command line and the model card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .clustering import clustering_metrics
from .result import Embed, EmbeddedImages, Evaluation
from .retrieval import Ranking, rank
from .robustness import robustness_metrics
from .uncertainty import judge_uncertainty, ood_metrics

_KEPT_NEIGHBOURS = 10


class RetrievalEvaluator:
    """Measures retrieval and uncertainty, and on request clustering, robustness and out-of-domain detection.

    Args:
        ks: The K of R@K.
        group_column: What `groups` stand for, for the name of the protocol.
        clustering: Whether to run k-means for NMI and F1 (slow with many classes).
        metric: Ranking by `"cosine"`, `"euclidean"` or `"introspective"`.
        tau: Temperature of the introspective distance.
        robustness_images: Images for the crop and corruption tests of `evaluate_images`; 0 leaves them out.
        seed: Seed of k-means and of the corruptions.
        device: Where to search; by default the CPU.

    Example:
        >>> from types import SimpleNamespace
        >>> x = np.array([[10, 0], [9, 1], [8, 3], [1, 9], [0, 10]], dtype=np.float32)
        >>> u = np.array([1, 2, 9, 3, 2.0])
        >>> embeddings = SimpleNamespace(semantic=x, uncertainty=u, semantic_norm=x[:, 0] + 1)
        >>> metrics = RetrievalEvaluator(ks=(1, 2))(embeddings, [0, 0, 1, 1, 1])
        >>> metrics["protocol"], metrics["recall_at_1"], metrics["r_auroc"], metrics["auroc_norm"]
        ('plain', 0.8, 1.0, 0.5)
    """

    def __init__(
        self,
        ks: Iterable[int] = (1, 2, 4, 8),
        *,
        group_column: str | None = None,
        clustering: bool = False,
        metric: str = "cosine",
        tau: float = 5.0,
        robustness_images: int = 200,
        seed: int = 0,
        device: Any = None,
    ) -> None:
        self.ks = tuple(ks)
        self.group_column = group_column
        self.clustering = clustering
        self.metric, self.tau = metric, tau
        self.robustness_images = robustness_images
        self.seed = seed
        self.device = device

    def __call__(self, embeddings: EmbeddedImages, labels: Any, groups: Any = None) -> dict[str, Any]:
        """The metrics of embedded images; arguments and result as for `evaluate_embeddings`."""
        return self.evaluate_embeddings(embeddings, labels, groups).metrics

    def evaluate_embeddings(self, embeddings: EmbeddedImages, labels: Any, groups: Any = None) -> Evaluation:
        """Measures embedded images.

        Args:
            embeddings: What the model said of N images.
            labels: `(N,)` classes.
            groups: `(N,)` groups. Gallery items of a query's class and group are then ignored, and the metrics without
                groups are kept with the prefix `plain_`.

        Returns:
            An `Evaluation`. Its metrics are those of `retrieval_metrics`, `uncertainty_metrics` and perhaps
            `clustering_metrics`, with `protocol` (`plain` or `grouped:COLUMN`), `ranking` (the metric searched by),
            `uncertainty_mean` and `uncertainty_std`. What is undefined is `None`, since JSON has no NaN.
        """
        metrics: dict[str, Any] = {
            "protocol": "plain" if groups is None else f"grouped:{self.group_column or 'group'}",
            "ranking": self.metric,
        }
        ranking, measured = self._measure(embeddings, labels, groups)
        metrics |= measured
        if groups is not None:
            metrics |= {f"plain_{key}": value for key, value in self._measure(embeddings, labels, None)[1].items()}
        metrics["uncertainty_mean"] = float(np.mean(embeddings.uncertainty))
        metrics["uncertainty_std"] = float(np.std(embeddings.uncertainty))
        if self.clustering:
            metrics |= clustering_metrics(embeddings.semantic, labels, self.seed)
        groups = None if groups is None else np.asarray(groups)
        return Evaluation(json_ready(metrics), ranking, embeddings, np.asarray(labels), groups)

    def evaluate_images(
        self,
        embed: Embed,
        images: Sequence[Any],
        *,
        labels: Any = None,
        groups: Any = None,
        ood_images: Sequence[Any] | None = None,
        side: int | None = None,
    ) -> Evaluation:
        """Embeds images and measures them, with the crop and corruption tests on a fixed subset.

        Args:
            embed: Embeds a sequence of PIL images.
            images: N PIL images.
            labels: `(N,)`; by default `images.labels`.
            groups: `(N,)`; by default `images.groups` if there is such a thing.
            ood_images: Images of another domain, to be told apart by their uncertainty.
            side: The shorter side in pixels that the model sees; see `CorruptedImages`.

        Returns:
            As `evaluate_embeddings`, with the metrics of `robustness_metrics` and perhaps `ood_metrics`.

        Raises:
            ValueError: for images without a class, and as the metrics.
        """
        labels = np.asarray(getattr(images, "labels", None) if labels is None else labels)
        if labels.dtype.kind == "i" and (labels < 0).any():
            raise ValueError(f"{int((labels < 0).sum())} images have no class: only labelled images can be evaluated")
        if groups is None:
            groups = getattr(images, "groups", None)
        embeddings = embed(images)
        evaluation = self.evaluate_embeddings(embeddings, labels, groups)
        extra: dict[str, Any] = {}
        if groups is not None and self.group_column is None:
            extra["protocol"] = f"grouped:{getattr(images, 'group_column', None) or 'group'}"
        if self.robustness_images:
            extra |= robustness_metrics(
                embed,
                images,
                embeddings,
                labels,
                groups,
                number=self.robustness_images,
                seed=self.seed,
                side=side,
                metric=self.metric,
                tau=self.tau,
                device=self.device,
            )
        if ood_images is not None:
            ood = embed(ood_images)
            extra |= ood_metrics(
                embeddings.semantic,
                embeddings.uncertainty,
                labels,
                ood.semantic,
                ood.uncertainty,
                norms=embeddings.semantic_norm,
                ood_norms=ood.semantic_norm,
                device=self.device,
            )
        evaluation.metrics.update(json_ready(extra))
        return evaluation

    def _measure(self, embeddings: EmbeddedImages, labels: Any, groups: Any) -> tuple[Ranking, dict[str, Any]]:
        introspective = {}
        if self.metric == "introspective":
            introspective = {"uncertainty": embeddings.uncertainty_embeds, "tau": self.tau}
        ranking = rank(
            embeddings.semantic,
            labels,
            groups,
            keep=_KEPT_NEIGHBOURS,
            metric=self.metric,
            device=self.device,
            **introspective,
        )
        uncertainty = judge_uncertainty(ranking, embeddings.uncertainty, embeddings.semantic_norm, groups)
        return ranking, ranking.metrics(self.ks) | uncertainty


def json_ready(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics with None for what is undefined, since JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in metrics.items()
    }


__all__ = ["RetrievalEvaluator", "json_ready"]
