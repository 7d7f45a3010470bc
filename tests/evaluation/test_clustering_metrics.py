from __future__ import annotations

from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from idml_hf.evaluation import clustering_metrics
from idml_hf.evaluation.clustering import pair_f1

BACKENDS = [
    "sklearn",
    pytest.param("faiss", marks=pytest.mark.skipif(not find_spec("faiss"), reason="faiss is not installed")),
]


def blobs(spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 12)
    return np.eye(8)[labels] + spread * rng.standard_normal((96, 8)), labels


@pytest.mark.parametrize("backend", BACKENDS)
def test_noise_is_worse_than_order_and_settings_are_stated(backend: str) -> None:
    x, labels = blobs(0.05)
    good = clustering_metrics(x, labels + 2**24, seed=1, iterations=30, backend=backend)
    noise = clustering_metrics(blobs(10.0)[0], labels, seed=1, backend=backend)
    assert good["nmi"] > 0.9 and good["f1"] > 0.8
    assert noise["nmi"] < 0.6 and noise["f1"] < 0.3
    settings = {key: value for key, value in good.items() if key not in ("nmi", "ami", "f1")}
    assert settings == {
        "clustering_backend": backend,
        "clustering_seed": 1,
        "clustering_iterations": 30,
        "num_clusters": 8,
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_seed_same_result_and_length_does_not_matter(backend: str) -> None:
    x, labels = blobs(0.6)
    first = clustering_metrics(x, labels, backend=backend)
    assert clustering_metrics(x * np.arange(1, 97)[:, None], labels, backend=backend) == pytest.approx(first)
    assert {clustering_metrics(x, labels, seed=seed, backend=backend)["nmi"] for seed in range(4)} != {first["nmi"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_class_is_one_cluster(backend: str) -> None:
    metrics = clustering_metrics(blobs(0.1)[0], np.zeros(96, int), backend=backend)
    assert (metrics["nmi"], metrics["f1"], metrics["num_clusters"]) == (1.0, 1.0, 1)


@pytest.mark.skipif(not find_spec("faiss"), reason="faiss is not installed")
def test_nmi_and_ami_equal_pytorch_metric_learning() -> None:
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import FaissKMeans

    x, labels = blobs(0.4)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    peer = FaissKMeans(niter=20, seed=3, min_points_per_centroid=1, max_points_per_centroid=96)
    calculator = AccuracyCalculator(include=("NMI", "AMI"), kmeans_func=peer, device=torch.device("cpu"))
    theirs = calculator.get_accuracy(x.astype(np.float32), labels)
    ours = clustering_metrics(x, labels, seed=3, backend="faiss")
    assert (ours["nmi"], ours["ami"]) == pytest.approx((theirs["NMI"], theirs["AMI"]), abs=1e-6)
    assert 0.1 < ours["ami"] < ours["nmi"] < 0.9


def test_pair_f1_equals_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    classes, clusters = rng.integers(0, 5, 40), rng.integers(0, 6, 40)
    pairs = list(combinations(range(40), 2))
    same_class = {(i, j) for i, j in pairs if classes[i] == classes[j]}
    same_cluster = {(i, j) for i, j in pairs if clusters[i] == clusters[j]}
    both = len(same_class & same_cluster)
    precision, recall = both / len(same_cluster), both / len(same_class)
    assert pair_f1(classes, clusters) == pytest.approx(2 * precision * recall / (precision + recall))
    assert pair_f1(np.array([0, 1]), np.array([0, 1])) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": np.diag([1, np.nan])}, "embeddings has NaN or infinite values, first in row 1"),
        ({"embeddings": np.diag([1, 0])}, "no direction in row 1"),
        ({"embeddings": np.eye(1), "labels": [0]}, "at least two items"),
        ({"labels": [0, 1, 2]}, "one value for each of the 2 items"),
        ({"backend": "k-medoids"}, "Unknown backend 'k-medoids'"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clustering_metrics(**({"embeddings": np.eye(2), "labels": [0, 1], "backend": "sklearn"} | arguments))
