from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest

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


def test_batches_add_up(metric: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((30, 4), dtype=np.float32), rng.integers(0, 6, 30)
    for part in np.array_split(np.arange(30), 3):
        metric.add_batch(embeddings=x[part], labels=y[part])
    assert metric.compute() == retrieval_metrics(x, y)
