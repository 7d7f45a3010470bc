from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from idml_hf.evaluation import absent_metrics
from idml_hf.evaluation.foreign import blank_images, noise_images


@pytest.mark.parametrize("grouped", [False, True])
def test_absence_equals_a_loop(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 8, 60), rng.integers(0, 3, 60)
    x = rng.standard_normal((8, 4))[labels] + 0.7 * rng.standard_normal((60, 4))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = unit @ unit.T
    there: dict[str, list[float]] = {"max_similarity": [], "margin": [], "knn_distance": []}
    gone: dict[str, list[float]] = {"max_similarity": [], "margin": [], "knn_distance": []}
    for i in range(60):
        same = labels == labels[i]
        hidden = np.arange(60) == i
        if grouped:
            hidden |= same & (groups == groups[i])
        if not (same & ~hidden).any():
            continue
        for signals, ignored in ((there, hidden), (gone, same)):
            order = [j for j in np.argsort(-similarity[i]) if not ignored[j]]
            signals["max_similarity"].append(similarity[i, order[0]])
            rival = max(similarity[i, j] for j in order if labels[j] != labels[order[0]])
            signals["margin"].append(similarity[i, order[0]] - rival)
            signals["knn_distance"].append(np.mean([similarity[i, j] for j in order[:10]]))
    metrics = absent_metrics(x, labels, groups if grouped else None)
    assert set(metrics) == {f"absent_auroc_{name}" for name in there}
    for name, values in there.items():
        absent = np.r_[np.zeros(len(values)), np.ones(len(gone[name]))]
        expected = roc_auc_score(absent, -np.r_[values, gone[name]])
        assert metrics[f"absent_auroc_{name}"] == pytest.approx(expected)


def test_pictures_of_nothing() -> None:
    noise, blank = noise_images(3, 16, seed=1), blank_images(3, 16, seed=1)
    assert all(image.size == (16, 16) and image.mode == "RGB" for image in noise + blank)
    assert np.asarray(noise[0]).std() > 60 and all(
        np.ptp(np.asarray(image), axis=(0, 1)).max() == 0 for image in blank
    )
    assert len({image.tobytes() for image in noise + blank}) == 6
    assert noise[2] == noise_images(3, 16, seed=1)[2] != noise_images(3, 16, seed=2)[2]
