"""One evaluator for the Trainer, the command line and the model card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from idml_hf.errors import one_of
from idml_hf.search.arrays import as_count, as_positive
from idml_hf.search.scores import METRICS
from idml_hf.similarity import TAU

from .ambiguity import ambiguity_metrics
from .arguments import as_device, as_ks
from .ceiling import ceiling_metrics
from .clustering import clustering_metrics
from .foreign import absent_metrics, blank_images, judge_foreign, noise_images
from .pairs import pair_metrics
from .ranking import Ranking, rank
from .result import Embed, EmbeddedImages, Evaluation
from .robustness import robustness_metrics
from .uncertainty import NEIGHBOURS, judge_uncertainty

_FOREIGN_SIDE = 64  # pixels of what shows nothing, where the model's own size is not known


class RetrievalEvaluator:
    """Measures retrieval and uncertainty, and on request clustering, robustness and out-of-domain detection.

    Args:
        ks: The K of R@K.
        group_column: What `groups` stand for, for the name of the protocol.
        clustering: Whether to run k-means for NMI and F1 (slow with many classes).
        metric: Ranking by `"cosine"`, `"euclidean"` or `"introspective"`.
        tau: Temperature of the introspective distance.
        robustness_images: Images for the crop and corruption tests of `evaluate_images`; 0 leaves them out.
        ambiguous_images: Queries, half of them degraded, of `ambiguity_metrics`; 0 leaves them out.
        foreign_images: Images of noise, and blank ones, to be told from those that belong; 0 leaves them out.
        pairs: Pairs of images for `pair_metrics`; 0 leaves them out.
        ceiling_splits: Splits of the classes for `ceiling_metrics`; 0 leaves it out.
        seed: Seed of all that is random.
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
        tau: float = TAU,
        robustness_images: int = 200,
        ambiguous_images: int = 2000,
        foreign_images: int = 200,
        pairs: int = 10_000,
        ceiling_splits: int = 5,
        seed: int = 0,
        device: Any = None,
    ) -> None:
        self.ks = tuple(as_ks("ks", ks))
        self.group_column = group_column
        self.clustering = clustering
        self.metric, self.tau = one_of("metric", metric, METRICS), as_positive(tau, "tau")
        self.robustness_images = as_count(robustness_images, "robustness_images", least=0)
        self.ambiguous_images = as_count(ambiguous_images, "ambiguous_images", least=0)
        self.foreign_images = as_count(foreign_images, "foreign_images", least=0)
        self.pairs, self.ceiling_splits = (
            as_count(pairs, "pairs", least=0),
            as_count(ceiling_splits, "ceiling_splits", least=0),
        )
        self.seed = as_count(seed, "seed", least=0)
        self.device = as_device(device)

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
            `uncertainty_mean` and `uncertainty_std`, and some averaged over classes with the prefix `macro_`. What is
            undefined is `None`, since JSON has no NaN.
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
        """Embeds images and measures them: also what is degraded, foreign or absent, pairs, and the ceiling.

        Args:
            embed: Embeds a sequence of PIL images.
            images: N PIL images.
            labels: `(N,)`; by default `images.labels`.
            groups: `(N,)`; by default `images.groups` if there is such a thing.
            ood_images: Images of another domain, to be told apart by their uncertainty.
            side: The shorter side in pixels that the model sees; see `CorruptedImages`.

        Returns:
            As `evaluate_embeddings`, with the metrics of `ceiling_metrics`, `pair_metrics`, `absent_metrics`,
            `robustness_metrics`, `ambiguity_metrics`, and of foreign images: `noise_auroc`, `blank_auroc`, and given
            such images `ood_auroc`, each also of the free signals.

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
        if self.ceiling_splits:
            extra |= self._ceiling(evaluation)
        if self.pairs:
            extra |= pair_metrics(embeddings, labels, groups, number=self.pairs, tau=self.tau, seed=self.seed)
        harder: dict[str, Any] = {"seed": self.seed, "side": side, "metric": self.metric, "tau": self.tau}
        harder["device"] = self.device
        if self.robustness_images:
            number = self.robustness_images
            extra |= robustness_metrics(embed, images, embeddings, labels, groups, number=number, **harder)
        if self.ambiguous_images:
            number = self.ambiguous_images
            extra |= ambiguity_metrics(embed, images, embeddings, labels, groups, number=number, **harder)
        foreign = {} if ood_images is None else {"ood_auroc": ood_images}
        if self.foreign_images:
            extra |= absent_metrics(embeddings.semantic, labels, groups, device=self.device)
            size = self.foreign_images, side or _FOREIGN_SIDE, self.seed
            foreign |= {"noise_auroc": noise_images(*size), "blank_auroc": blank_images(*size)}
        extra |= self._foreign(embed, evaluation, foreign)
        evaluation.metrics.update(json_ready(extra))
        return evaluation

    def _ceiling(self, evaluation: Evaluation) -> dict[str, float]:
        """What a probe knows that reads all that the model says of an image."""
        counted, said = evaluation.ranking.counted, evaluation.embeddings
        known = np.column_stack([said.semantic, said.semantic_norm, said.uncertainty_embeds])[counted]
        return ceiling_metrics(
            known,
            said.uncertainty[counted],
            evaluation.ranking.correct[counted],
            evaluation.labels[counted],
            splits=self.ceiling_splits,
            seed=self.seed,
        )

    def _foreign(self, embed: Embed, evaluation: Evaluation, foreign: dict[str, Any]) -> dict[str, float]:
        """Images of other kinds, told from those that belong; groups play no part, since foreign images have none."""
        if not foreign:
            return {}
        own = evaluation.embeddings
        classes = np.unique(evaluation.labels, return_inverse=True)[1]
        search: dict[str, Any] = {"keep": NEIGHBOURS, "device": self.device}
        inside = rank(own.semantic, classes, **search), own.uncertainty, own.semantic_norm
        metrics: dict[str, float] = {}
        for name, images in foreign.items():
            theirs = embed(images)
            nowhere = np.full(len(theirs.semantic), -1)
            found = rank(theirs.semantic, nowhere, gallery=own.semantic, gallery_labels=classes, **search)
            metrics |= judge_foreign(name, inside, (found, theirs.uncertainty, theirs.semantic_norm))
        return metrics

    def _measure(self, embeddings: EmbeddedImages, labels: Any, groups: Any) -> tuple[Ranking, dict[str, Any]]:
        introspective = {}
        if self.metric == "introspective":
            introspective = {"uncertainty": embeddings.uncertainty_embeds, "tau": self.tau}
        ranking = rank(
            embeddings.semantic,
            labels,
            groups,
            keep=NEIGHBOURS,
            map_ks=(NEIGHBOURS,),
            metric=self.metric,
            device=self.device,
            **introspective,
        )
        uncertainty = judge_uncertainty(ranking, embeddings.uncertainty, embeddings.semantic_norm, groups)
        macro = ranking.metrics(self.ks, average="classes")
        names = (*(f"recall_at_{k}" for k in self.ks[:1]), "r_precision", "map_at_r")
        return ranking, ranking.metrics(self.ks) | {f"macro_{name}": macro[name] for name in names} | uncertainty


def json_ready(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics with None for what is undefined, since JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in metrics.items()
    }


__all__ = ["RetrievalEvaluator", "json_ready"]
