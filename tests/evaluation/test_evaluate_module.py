from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch

from idml_hf.evaluation import retrieval_metrics, uncertainty_metrics

FOLDER = Path(__file__).parents[2] / "metrics" / "idml_retrieval"


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Loaded without a network, into caches of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path))


def test_equals_the_functions(metric: Any) -> None:
    rng = np.random.default_rng(0)
    x, y, groups = rng.random((40, 5), dtype=np.float32), rng.integers(0, 6, 40) + 2**40, rng.integers(0, 2, 40)
    assert metric.compute(embeddings=x, labels=y, ks=(1, 3)) == retrieval_metrics(x, y, (1, 3))
    result = metric.compute(embeddings=x, labels=y, groups=groups, uncertainty=x[:, 0], metric="euclidean")
    expected = retrieval_metrics(x, y, groups=groups, metric="euclidean")
    expected |= uncertainty_metrics(x, x[:, 0], y, groups, metric="euclidean")
    assert result == expected


X = np.random.default_rng(2).standard_normal((8, 3))
Y = np.array([0, 0, 1, 1, 2, 2, 3, 3])
LABELS = {
    "unsigned": Y.astype(np.uint8),
    "whole floats": Y.astype(np.float32),
    "bfloat16": torch.from_numpy(Y).bfloat16(),
    "list of tensors": [torch.tensor(y) for y in Y],
    "strings": [f"class {y}" for y in Y],
    "strings like numbers": [str(y) for y in Y],
    "objects": np.array([f"class {y}" for y in Y], dtype=object),
    "other byte order": Y.astype(Y.dtype.newbyteorder()),
    "booleans": Y < 2,
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_type_come_through(metric: Any, kind: str) -> None:
    assert metric.compute(embeddings=X, labels=LABELS[kind]) == retrieval_metrics(X, LABELS[kind])


def test_labels_are_never_cast_to_other_labels(metric: Any) -> None:
    """`0.2` and `0.7` would both become 0, `05` and `5` both 5."""
    with pytest.raises(ValueError, match="labels must be integers or strings, got float64"):
        metric.compute(embeddings=X[:4], labels=[0.2, 0.7, 0.2, 0.7])
    with pytest.raises(ValueError, match="labels must be integers of at most 63 bits"):
        metric.compute(embeddings=X[:2], labels=np.array([1, 2**63], np.uint64))
    with pytest.raises(ValueError, match="labels has NaN"):
        metric.compute(embeddings=X[:2], labels=[1.0, np.nan])
    with pytest.raises(ValueError, match="embeddings has NaN"):
        metric.compute(embeddings=np.full((2, 2), np.nan), labels=[1, 1])
    padded = ["05", "5", "05", "5"]
    assert metric.compute(embeddings=X[:4], labels=padded) == retrieval_metrics(X[:4], padded)


def test_one_at_a_time_and_types_that_change(metric: Any) -> None:
    for x, y in zip(torch.from_numpy(X).requires_grad_(), Y, strict=True):
        metric.add(embeddings=x, labels=y)
    assert metric.compute() == retrieval_metrics(X, Y)
    metric.add_batch(embeddings=X[:4], labels=Y[:4])
    with pytest.raises(ValueError, match="labels of all batches must be of one type"):
        metric.add_batch(embeddings=X[4:], labels=[str(y) for y in Y[4:]])


def test_no_digit_of_an_embedding_is_lost(metric: Any) -> None:
    x = [[1, 1e-9], [1, 0], [1, 2e-9]]
    assert metric.compute(embeddings=x, labels=[0, 1, 0]) == retrieval_metrics(x, [0, 1, 0])


def test_batches_add_up(metric: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((30, 4), dtype=np.float32), rng.integers(0, 6, 30)
    for part in np.array_split(np.arange(30), 3):
        metric.add_batch(embeddings=x[part], labels=y[part])
    assert metric.compute() == retrieval_metrics(x, y)
