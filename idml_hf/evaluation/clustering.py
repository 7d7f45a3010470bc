"""Clustering metrics: NMI, AMI and F1 of k-means with as many clusters as classes."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix

from idml_hf.errors import one_of
from idml_hf.search.arrays import as_count

from .arguments import as_codes, as_directions, as_labels, as_rows

BACKENDS = ("faiss", "sklearn")


def clustering_metrics(
    embeddings: Any, labels: Any, seed: int = 0, *, iterations: int = 20, backend: str | None = None
) -> dict[str, Any]:
    """NMI, AMI and F1 of a k-means clustering of the normalised embeddings, with as many clusters as classes.

    NMI is mutual information over the arithmetic mean of the two entropies; AMI is the same less what clusters at
    random would have (Vinh et al., 2010), which matters where classes are small and many; F1 is that of the pairs of
    items that share a cluster against those that share a class (Song et al., "Deep Metric Learning via Lifted
    Structured Feature Embedding", 2016). All depend on where k-means starts, so the settings are part of the result.

    Args:
        embeddings: `(N, d)` array or tensor.
        labels: `(N,)` integers of any size, or strings.
        seed: Seed of the starting centroids.
        iterations: At most so many Lloyd iterations.
        backend: `"faiss"` (random items as first centroids, all items used) or `"sklearn"` (k-means++, one start); by
            default faiss where it is installed.

    Returns:
        `nmi` and `f1` in [0, 1], `ami` in [-1, 1], and `clustering_backend`, `clustering_seed`,
        `clustering_iterations`, `num_clusters`.

    Raises:
        ValueError: for values that are not finite, a zero row, another number of labels, fewer than two items.
        ImportError: if `backend="faiss"` is not installed.

    Example:
        >>> metrics = clustering_metrics([[9, 0], [9, 1], [0, 9], [1, 9]], ["a", "a", "b", "b"], backend="sklearn")
        >>> metrics["nmi"], metrics["f1"], metrics["num_clusters"]
        (1.0, 1.0, 2)
    """
    if backend is None:
        backend = "faiss" if importlib.util.find_spec("faiss") else "sklearn"
    one_of("backend", backend, BACKENDS)
    iterations, seed = as_count(iterations, "iterations"), as_count(seed, "seed", least=0)
    matrix = as_directions("embeddings", as_rows("embeddings", embeddings)).cpu()
    if len(matrix) < 2:
        raise ValueError("embeddings must be at least two items, to be clustered")
    classes = as_codes("labels", as_labels("labels", labels, len(matrix)), None)[0].numpy()
    number = int(classes.max()) + 1
    normal = torch.nn.functional.normalize(matrix.double()).float().numpy()
    cluster = _faiss_clusters if backend == "faiss" else _sklearn_clusters
    clusters = cluster(normal, number, seed, iterations)
    return {
        "nmi": float(normalized_mutual_info_score(classes, clusters)),
        "ami": float(adjusted_mutual_info_score(classes, clusters)),
        "f1": pair_f1(classes, clusters),
        "clustering_backend": backend,
        "clustering_seed": seed,
        "clustering_iterations": iterations,
        "num_clusters": number,
    }


def pair_f1(classes: np.ndarray, clusters: np.ndarray) -> float:
    """F1 of "same cluster" as a prediction of "same class" over all pairs of items; 0 if no pair is in both.

    Example:
        >>> pair_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
        0.4
    """
    pairs = pair_confusion_matrix(classes, clusters)
    both, either = float(pairs[1, 1]), float(pairs[0, 1] + pairs[1, 0])
    return 2 * both / (2 * both + either) if both else 0.0


def _faiss_clusters(matrix: np.ndarray, number: int, seed: int, iterations: int) -> np.ndarray:
    import faiss

    if number == 1:
        return np.zeros(len(matrix), dtype=np.int64)
    # Without these two limits faiss trains on a random part of the items, or warns of small classes.
    kmeans = faiss.Kmeans(
        matrix.shape[1],
        number,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(matrix),
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(matrix)
    return kmeans.index.search(matrix, 1)[1][:, 0]


def _sklearn_clusters(matrix: np.ndarray, number: int, seed: int, iterations: int) -> np.ndarray:
    return KMeans(number, n_init=1, max_iter=iterations, random_state=seed).fit_predict(matrix)
