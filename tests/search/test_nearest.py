"""One function over all backends, metrics and kinds of arrays."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idml_hf.search import faiss_exact, nearest
from idml_hf.search.arrays import as_count, as_integers, unit_rows

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.integers(-3, 4, (60, 5)).astype(np.float32) + np.float32(0.5)
KINDS = {
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "longdouble": lambda x: x.astype(np.longdouble),
    "big endian": lambda x: x.astype(">f4"),
    "negative strides": lambda x: x[::-1].copy()[::-1],
    "columns": np.asfortranarray,
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "read only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
    "list": lambda x: x.tolist(),
    "rows": list,
    "tensor": lambda x: torch.tensor(x),
    "half tensor": lambda x: torch.tensor(x).half(),
    "bf16 tensor": lambda x: torch.tensor(x).bfloat16(),
    "tensor with grad": lambda x: torch.tensor(x, requires_grad=True),
    "rows with grad": lambda x: list(torch.tensor(x, requires_grad=True)),
    "sparse tensor": lambda x: torch.tensor(x).to_sparse(),
    "integers": lambda x: (2 * x).astype(np.int64),
    "unsigned": lambda x: (2 * x + 8).astype(np.uint8),
}


def by_loop(q: Any, g: Any, k: int, metric: str, u: Any, v: Any, tau: float, hidden: Any) -> tuple[list, list]:
    """Scores and positions as written down in the definitions."""
    all_scores, all_positions = [], []
    for i in range(len(q)):
        scores = []
        for j in range(len(g)):
            a, b = (x / np.linalg.norm(x) if metric != "euclidean" else x for x in (q[i], g[j]))
            if hidden is not None and hidden[0][i] == hidden[1][j]:
                continue
            alpha = np.linalg.norm(a - b)
            if metric == "cosine":
                value = a @ b
            elif metric == "euclidean":
                value = -alpha
            else:
                value = -alpha * np.exp(-np.linalg.norm(u[i] + v[j]) / (tau * alpha)) if alpha > 1e-7 else 0.0
            # distances are compared by their squares
            key = -value if metric == "cosine" else value * value
            scores.append((round(float(key) * 2**38), j, float(value)))
        scores = sorted(scores)[:k]
        missing = k - len(scores)
        all_scores.append([value for _, _, value in scores] + [-np.inf] * missing)
        all_positions.append([j for _, j, _ in scores] + [-1] * missing)
    return all_scores, all_positions


@pytest.fixture(params=["faiss", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "faiss":
        pytest.importorskip("faiss")
    else:
        monkeypatch.setattr(faiss_exact, "faiss", None)
    return request.param


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32), metric=st.sampled_from(["cosine", "euclidean", "introspective"]), hide=st.booleans()
)
def test_equals_a_loop_over_the_definitions(seed: int, metric: str, hide: bool) -> None:
    random = np.random.default_rng(seed)
    queries, items, k = random.integers(0, 6), random.integers(0, 30), int(random.integers(1, 12))
    d = random.integers(1, 4)
    # few values, so that there are ties and copies; no zeros, which have no direction
    q, g = (random.integers(0, 3, (n, d)).astype(np.float64) * 2 - 1 for n in (queries, items))
    u, v = (random.integers(0, 3, (n, 2)).astype(np.float64) for n in (queries, items))
    hidden = (random.integers(0, 3, queries), random.integers(0, 3, items)) if hide else None
    expected = by_loop(q, g, k, metric, u, v, 0.7, hidden)
    scores, positions = nearest(q, g, k, metric, uncertainty=u, gallery_uncertainty=v, tau=0.7, exclude=hidden)
    assert positions.shape == scores.shape == (queries, k)
    assert positions.tolist() == expected[1]
    assert scores == pytest.approx(np.array(expected[0]).reshape(scores.shape), abs=2e-6)


@pytest.mark.parametrize("metric", ["cosine", "introspective"])
def test_every_backend_gives_the_same_to_the_last_bit(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    q, g = RANDOM.standard_normal((20, 64)), RANDOM.standard_normal((2000, 64))
    g[500:520] = g[3]
    q[:5] = g[3]
    doubts = {"uncertainty": np.abs(q[:, :9]), "gallery_uncertainty": np.abs(g[:, :9])}
    first = nearest(q, g, 30, metric, **doubts)
    nobody = np.arange(20), np.arange(2000) + 100
    monkeypatch.setattr(faiss_exact, "faiss", None)
    for again in (nearest(q, g, 30, metric, **doubts), nearest(q, g, 30, metric, exclude=nobody, **doubts)):
        assert np.array_equal(again[0], first[0]) and np.array_equal(again[1], first[1])


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "introspective"])
def test_arrays_and_tensors_of_every_kind(kind: str, metric: str, backend: str) -> None:
    made = KINDS[kind](ROWS)
    plain = {"integers": 2 * ROWS, "unsigned": 2 * ROWS + 8}.get(kind, ROWS)
    doubts = {"uncertainty": KINDS[kind](np.abs(ROWS[:5])), "gallery_uncertainty": KINDS[kind](np.abs(ROWS))}
    if kind in ("integers", "unsigned"):
        doubts = {"uncertainty": np.abs(ROWS[:5]), "gallery_uncertainty": np.abs(ROWS)}
    found = nearest(made[:5] if kind != "sparse tensor" else KINDS[kind](ROWS[:5]), made, 7, metric, **doubts)
    expected = nearest(plain[:5], plain, 7, metric, uncertainty=np.abs(ROWS[:5]), gallery_uncertainty=np.abs(ROWS))
    assert found[1].tolist() == expected[1].tolist()


@pytest.mark.parametrize("metric", ["cosine", "introspective"])
@pytest.mark.parametrize("scale", [1e-200, 1e-38, 1e-13, 1e-5, 1e5, 1e30, 1e200])
def test_only_the_direction_counts(metric: str, scale: float, backend: str) -> None:
    x, u = RANDOM.standard_normal((40, 6)), np.abs(RANDOM.standard_normal((40, 3)))
    sizes = np.where(np.arange(40) % 3, scale, 1.0)[:, None]
    doubts = {"uncertainty": u, "gallery_uncertainty": u}
    assert np.array_equal(nearest(x * sizes, x, 5, metric, **doubts)[1], nearest(x, x * sizes, 5, metric, **doubts)[1])
    assert np.array_equal(nearest(x * sizes, x, 5, metric, **doubts)[1], nearest(x, x, 5, metric, **doubts)[1])


def test_no_uncertainty_is_one_of_zero() -> None:
    x, u = ROWS[:30], np.abs(ROWS[:30, :2])
    zeros = np.zeros_like(u)
    for one, other in (((None, u), (zeros, u)), ((u, None), (u, zeros)), ((None, None), (zeros, zeros))):
        found, expected = (
            nearest(x, x, 6, "introspective", uncertainty=a, gallery_uncertainty=b) for a, b in (one, other)
        )
        assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


@pytest.mark.parametrize("size", [1e18, 1e30])
def test_an_uncertainty_beyond_all_bounds_makes_all_distances_0(size: float) -> None:
    u = np.ones((30, 2)) * size
    scores, positions = nearest(ROWS[:30], ROWS[:30], 4, "introspective", uncertainty=u, gallery_uncertainty=u)
    assert (scores == 0).all() and (positions == np.arange(4)).all()


@pytest.mark.parametrize("k", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_a_count_may_be_of_any_integer_type(k: Any, backend: str) -> None:
    for metric in ("cosine", "euclidean", "introspective"):
        assert nearest(ROWS, ROWS, k, metric)[1].shape == (60, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": 2.0}, "k must be a whole number, got 2.0"),
        ({"k": True}, "k must be a whole number, got True"),
        ({"k": "3"}, "k must be a whole number"),
        ({"metric": "cosin"}, "Unknown metric 'cosin'. Did you mean 'cosine'"),
        ({"tau": 0, "metric": "introspective"}, "tau must be a finite number above 0, got 0"),
        ({"tau": float("nan"), "metric": "introspective"}, "tau must be a finite number above 0, got nan"),
        ({"tau": "x", "metric": "introspective"}, "tau must be a number above 0"),
        ({"queries": np.zeros((2, 5))}, "queries have no direction in row 0: it is all zeros"),
        ({"gallery": np.vstack([ROWS, 0 * ROWS[:1]])}, "gallery have no direction in row 60"),
        ({"queries": np.full((2, 5), np.nan)}, "queries have NaN or infinite values, first in row 0"),
        ({"queries": np.full((2, 5), 1j)}, "queries must be numbers, got complex numbers"),
        ({"queries": [["a"] * 5]}, "queries must be numbers, got strings"),
        ({"queries": [[1.0, 2.0], [3.0]]}, "queries must be an array, got rows of different lengths"),
        ({"queries": np.ma.masked_less(ROWS, 0)}, "queries has masked values"),
        ({"queries": ROWS[0]}, r"queries must be a matrix; got \(5,\)"),
        ({"queries": ROWS[:, :0]}, "queries must be a matrix"),
        ({"queries": ROWS[:, :4]}, "queries have 4 dimensions, the gallery 5"),
        ({"metric": "introspective", "uncertainty": ROWS[:2]}, "uncertainty must be a matrix of 60 rows"),
        (
            {"metric": "introspective", "uncertainty": ROWS[:, :2], "gallery_uncertainty": ROWS[:, :3]},
            "uncertainty has 2 dimensions, gallery_uncertainty 3",
        ),
        ({"exclude": (np.zeros(60), np.zeros(60))}, "one integer an item"),
        ({"exclude": (np.zeros(60, int), np.zeros(3, int))}, r"60 items, got \(3,\)"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest(**({"queries": ROWS, "gallery": ROWS} | arguments))


def test_unit_rows_are_not_copied_and_others_not_changed() -> None:
    unit = unit_rows(ROWS, "rows")
    assert unit_rows(unit, "rows") is unit
    before = ROWS.copy()
    assert np.linalg.norm(unit_rows(ROWS * 1e-38, "rows"), axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(before, ROWS)


@pytest.mark.parametrize(
    "values",
    [[0.0], [1.5], ["1"], [b"1"], [True], [None], [2**63], [2**64], np.array([2**63], np.uint64), [1j], [[1], [2, 3]]],
)
def test_only_integers_are_integers(values: Any) -> None:
    with pytest.raises(ValueError, match="ids must be"):
        as_integers(values, "ids")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, ">i4", np.uint64, np.int64])
def test_integers_of_all_kinds(kind: Any) -> None:
    assert as_integers(np.array([1, 5, 0], kind), "ids").tolist() == [1, 5, 0]
    assert as_integers(torch.tensor([3, 2]), "ids").dtype == np.int64
    assert as_integers([], "ids").shape == (0,) and as_integers(7, "id").tolist() == [7]
    assert as_count(np.int32(4), "k") == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "introspective"])
def test_a_gpu_gives_the_same(metric: str) -> None:
    q, g = RANDOM.standard_normal((50, 32)), RANDOM.standard_normal((3000, 32))
    g[100:150] = g[7]
    doubts = {"uncertainty": np.abs(q[:, :5]), "gallery_uncertainty": np.abs(g[:, :5])}
    here, there = (nearest(q, g, 20, metric, device=device, **doubts) for device in ("cpu", "cuda"))
    assert np.array_equal(here[1], there[1]) and here[0] == pytest.approx(there[0], abs=1e-9)


def test_faiss_on_a_gpu_is_used_and_its_proposals_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the GPU: faiss's search on the processor, and torch's without a device."""
    faiss = pytest.importorskip("faiss")
    calls = []

    def knn_gpu(resources: Any, q: np.ndarray, g: np.ndarray, k: int, metric: int, device: int) -> Any:
        calls.append(device)
        return faiss.knn(q, g, k, metric)

    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss_exact, "_resources", lambda device: None)
    whole = faiss_exact.top_k
    monkeypatch.setattr(faiss_exact, "top_k", lambda *a, **b: whole(*a, **(b | {"device": "cpu"})))
    x = np.repeat(ROWS, 12, axis=0)
    here, there = nearest(x[:9], x, 5), nearest(x[:9], x, 5, device="cuda:1")
    assert np.array_equal(here[0], there[0]) and np.array_equal(here[1], there[1])
    assert calls == [1]
    assert not faiss_exact.can_search(torch.device("cuda:2"), 5)
    assert not faiss_exact.can_search(torch.device("cuda:0"), 5000)
    assert "idml_hf.search.neighbours" in sys.modules
