from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from colored_images import ColoredImages, mean_colors
from sklearn.metrics import roc_auc_score

from idml_hf.evaluation import ambiguity_metrics
from idml_hf.evaluation.corruptions import UNSEEN, CorruptedImages, PartlyDegradedImages
from idml_hf.training.degradation import DEGRADATIONS


def hard_images(number: int = 80) -> ColoredImages:
    """A third of them are of another class than their colour says."""
    images, rng = ColoredImages(number), np.random.default_rng(0)
    images.labels = np.where(rng.random(number) < 0.33, rng.integers(0, 4, number), images.labels)
    return images


def test_half_is_degraded_at_every_severity_as_training_never_does() -> None:
    images = ColoredImages(400)
    view = PartlyDegradedImages(images, 0, np.arange(400), 24)
    assert (view.severity > 0).sum() == 200 and set(view.severity.tolist()) == {0, 1, 2, 3, 4, 5}
    assert {UNSEEN[kind] for kind in view.kind} == set(UNSEEN) and not set(UNSEEN) & set(DEGRADATIONS)
    for i in range(12):
        expected = CorruptedImages(images, UNSEEN[view.kind[i]], int(view.severity[i]), 0, side=24)[i]
        assert view[i] == expected and (view[i] == images[i]) == (view.severity[i] == 0)
    again = PartlyDegradedImages(images, 0, np.arange(400), 24)
    assert np.array_equal(view.severity, again.severity)
    assert not np.array_equal(view.severity, PartlyDegradedImages(images, 1, np.arange(400), 24).severity)


@pytest.mark.parametrize("grouped", [False, True])
def test_equals_a_loop_over_queries(grouped: bool) -> None:
    images = hard_images()
    clean, groups = mean_colors(images), images.groups if grouped else None
    metrics = ambiguity_metrics(mean_colors, images, clean, images.labels, groups, number=50, seed=5, side=24)
    indices = np.sort(np.random.default_rng(5).permutation(80)[:50])
    view = PartlyDegradedImages(images, 5, indices, 24)
    asked = mean_colors(view)
    correct, similarity = [], []
    for row, i in enumerate(indices):
        best = (-2.0, -1)
        for j in range(80):
            hidden = j == i
            if grouped:
                hidden |= images.labels[j] == images.labels[i] and images.groups[j] == images.groups[i]
            score = float(asked.semantic[row].astype(np.float64) @ clean.semantic[j].astype(np.float64))
            if not hidden and score > best[0]:
                best = (score, j)
        correct.append(images.labels[best[1]] == images.labels[i])
        similarity.append(best[0])
    degraded = view.severity > 0
    assert metrics["ambiguous_images"] == 50 and 0 < np.mean(correct) < 1
    assert metrics["error_rate_ambiguous"] == pytest.approx(1 - np.mean(correct))
    assert metrics["r_auroc_ambiguous"] == pytest.approx(roc_auc_score(correct, -asked.uncertainty))
    assert metrics["auroc_max_similarity_ambiguous"] == pytest.approx(roc_auc_score(correct, similarity), abs=2e-3)
    assert metrics["degraded_auroc"] == pytest.approx(roc_auc_score(degraded, asked.uncertainty))
    assert metrics["degraded_auroc_norm"] == pytest.approx(roc_auc_score(degraded, -asked.semantic_norm))
    for signal in ("max_similarity", "margin", "norm", "knn_distance"):
        for key in (f"auroc_{signal}_ambiguous", f"aurc_{signal}_ambiguous", f"degraded_auroc_{signal}"):
            assert 0 <= metrics[key] <= 1


def test_queries_without_a_match_are_not_asked() -> None:
    images = ColoredImages(12)
    images.labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5])

    def embed(view: Any) -> Any:
        seen.append(len(view))
        return mean_colors(view)

    seen: list[int] = []
    assert ambiguity_metrics(embed, images, mean_colors(images), images.labels)["ambiguous_images"] == 8
    assert seen == [8]
    groups = np.zeros(12, int)  # nothing is left to find
    assert ambiguity_metrics(embed, images, mean_colors(images), images.labels, groups) == {}


def test_a_constant_uncertainty_is_undefined_and_the_free_signals_are_not() -> None:
    images = hard_images()

    def embed(view: Any) -> Any:
        said = mean_colors(view)
        said.uncertainty[:] = 1
        return said

    metrics = ambiguity_metrics(embed, images, embed(images), images.labels, images.groups)
    assert np.isnan([metrics["r_auroc_ambiguous"], metrics["degraded_auroc"], metrics["aurc_ambiguous"]]).all()
    assert not np.isnan([metrics["auroc_margin_ambiguous"], metrics["degraded_auroc_margin"]]).any()
