from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idml_hf.search.exact import Search, top_k
from idml_hf.similarity import introspective_distance

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def exact_order(queries: Tensor, gallery: Tensor, metric: str) -> Tensor:
    """Stable order of integer vectors whose scores are exact in float64."""
    dot = queries.double() @ gallery.double().T
    if metric == "cosine":
        # two different fractions of such integers are never within 1e-6 of each other
        score = (dot.sign() * dot**2 / gallery.double().square().sum(1)).mul(1e6).round()
    else:
        score = 2 * dot - gallery.double().square().sum(1)
    return score.sort(dim=1, descending=True, stable=True).indices


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 120)),
    dimensions=st.integers(1, 5),
    k=st.integers(1, 130),
    block_size=st.sampled_from([None, 1, 7]),
)
def test_ties_go_to_the_smaller_index(
    seed: int, sizes: tuple[int, int], dimensions: int, k: int, block_size: int | None, metric: str, device: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, gallery = (torch.randint(-2, 3, (size, dimensions), generator=generator) for size in sizes)
    queries[(queries == 0).all(1)] = 1
    gallery[(gallery == 0).all(1)] = 1
    scores, index = top_k(queries, gallery, k, metric=metric, block_size=block_size, device=device)
    found = min(k, len(gallery))
    assert torch.equal(index[:, :found], exact_order(queries, gallery, metric)[:, :found])
    assert (index[:, found:] == -1).all() and (scores[:, found:] == -torch.inf).all()
    assert (scores[:, 1:] <= scores[:, :-1]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_duplicates_of_real_vectors_tie_exactly(metric: str, dtype: torch.dtype, device: str) -> None:
    """Each vector is in the gallery 30 times, at random places: more often than candidates are proposed."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(40, 77, generator=generator).to(dtype)
    kind = torch.randperm(1200, generator=generator) % 40
    _, index = top_k(kinds, kinds[kind], 30, metric=metric, device=device)
    expected = torch.stack([(kind == i).nonzero()[:, 0] for i in range(40)])
    assert torch.equal(index, expected)


def test_same_result_for_every_block_size_and_under_autocast() -> None:
    x = torch.randn(500, 96, generator=torch.Generator().manual_seed(1))
    x[250:300] = x[100:150] * (1 + 1e-7 * torch.arange(50)[:, None])
    expected = top_k(x, k=9)
    exact = torch.nn.functional.normalize(x.double())
    reference = (exact @ exact.T).fill_diagonal_(-9).topk(9)
    assert torch.allclose(expected[0], reference.values, atol=1e-6)
    for block_size in (1, 3, 499):
        assert torch.equal(top_k(x, k=9, block_size=block_size)[1], expected[1])
    with torch.autocast("cpu", torch.bfloat16):
        again = top_k(x, k=9)
    assert torch.equal(again[0], expected[0]) and torch.equal(again[1], expected[1])


def test_reduced_precision_of_matrix_products_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    backends: Any = torch.backends
    product, during = torch.mm, []

    def spy(*args: Any, **kwargs: Any) -> Tensor:
        during.append((backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision))
        return product(*args, **kwargs)

    monkeypatch.setattr(torch, "mm", spy)
    matmuls = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [matmul.fp32_precision for matmul in matmuls]
    try:
        for matmul, precision in zip(matmuls, ("tf32", "bf16"), strict=True):
            matmul.fp32_precision = precision
        top_k(torch.eye(3), k=1)
        after = tuple(matmul.fp32_precision for matmul in matmuls)
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision
    assert during == [("ieee", "ieee")] and after == ("tf32", "bf16")


def test_near_ties_that_float32_cannot_order() -> None:
    """The gallery moves away from the query in steps that float32 does not see."""
    angles = 0.5 + 1e-9 * torch.arange(300, dtype=torch.float64)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1)[shuffled]
    _, index = top_k(torch.tensor([[1.0, 0.0]], dtype=torch.float64), gallery, 20)
    assert shuffled[index[0]].tolist() == list(range(20))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_size_of_the_vectors_does_not_matter(scale: float) -> None:
    x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    for metric in ("cosine", "euclidean"):
        assert torch.equal(top_k(x * np.float32(scale), k=5, metric=metric)[1], top_k(x, k=5, metric=metric)[1])


def test_scores_are_similarity_or_negative_distance() -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scores, index = top_k(x, k=3)
    assert torch.allclose(scores, torch.cosine_similarity(x[:, None], x[index], dim=-1), atol=1e-6)
    scores, index = top_k(x, k=3, metric="euclidean")
    assert torch.allclose(scores, -(x[:, None] - x[index]).norm(dim=-1), atol=1e-5)


def test_introspective_distance_orders_and_ties() -> None:
    generator = torch.Generator().manual_seed(3)
    semantic = torch.nn.functional.normalize(torch.randn(50, 8, generator=generator, dtype=torch.float64))
    uncertainty = torch.rand(50, 4, generator=generator, dtype=torch.float64)
    semantic[[10, 11]] = semantic[3].clone()
    uncertainty[[3, 5, 10, 11]] = 0
    distance = introspective_distance(semantic, uncertainty, semantic, uncertainty)
    # squared, duplicates differ from 0 by rounding only
    order = distance.square().fill_diagonal_(torch.inf).mul(1e9).round().sort(dim=1, stable=True).indices[:, :49]
    scores, index = top_k(semantic * 3, k=49, metric="introspective", uncertainty=uncertainty, block_size=13)
    assert torch.equal(index, order)
    assert torch.allclose(scores, -distance.gather(1, order), atol=1e-6)


def test_exclude_hides_items_with_the_querys_code() -> None:
    x = np.eye(3)[[0, 0, 1, 1, 2]]
    _, index = top_k(x[:2], x, 3, exclude=(np.array([7, 8]), np.array([7, 1, 1, 8, 7])))
    assert index.tolist() == [[1, 2, 3], [0, 1, 2]]
    _, index = top_k(x[:1], x, 3, exclude=(np.array([7]), np.array([7, 7, 1, 7, 7])))
    assert index.tolist() == [[2, -1, -1]]


def test_a_block_of_scores_stays_within_256_megabytes() -> None:
    search = Search(np.ones((100_000, 1), dtype=np.float32))
    assert search.block_size * search.num_gallery * 4 <= 2**28


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"exclude": (np.zeros(2, int), np.zeros(3, int))}, "one integer an item: 3 items, got \\(2,\\)"),
        ({"exclude": (np.zeros(3), np.zeros(3))}, "one integer an item"),
        ({"queries": np.full((3, 2), 1e200)}, "too large"),
        ({"gallery": np.zeros((3, 3))}, "gallery have no direction in row 0"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_k(**({"queries": np.eye(3)} | arguments))
