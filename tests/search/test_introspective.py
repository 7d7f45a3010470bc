from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idml_hf.search import introspective
from idml_hf.search.arrays import unit_rows
from idml_hf.search.exact import top_k
from idml_hf.search.introspective import nearest_introspective


def brute_force(q: np.ndarray, u_q: np.ndarray, g: np.ndarray, u_g: np.ndarray, k: int, tau: float) -> tuple:
    scores, positions = top_k(q, g, k, metric="introspective", uncertainty=u_q, gallery_uncertainty=u_g, tau=tau)
    return scores.numpy(), positions.numpy()


def random_gallery(seed: int) -> tuple:
    """Embeddings of one of many kinds: clustered or not, few values (ties), duplicates, any size of uncertainty."""
    random = np.random.default_rng(seed)
    n, number, d, d_u = random.integers(1, 3000), random.integers(1, 40), random.integers(2, 24), random.integers(1, 9)
    centres = random.standard_normal((random.integers(1, 60), d))
    spread = random.choice([0.0, 0.1, 0.7, 5.0])
    rows = centres[random.integers(0, len(centres), n + number)] + spread * random.standard_normal((n + number, d))
    u = random.standard_normal((n + number, d_u)) * random.choice([0.0, 0.1, 1.0, 30.0])
    if seed % 2:
        u = np.abs(u)
    if seed % 3 == 0:
        rows, u = np.round(rows) + 1e-3, np.round(u)
    s, u = unit_rows(rows, "rows"), u.astype(np.float32)
    copies = random.integers(0, n, (2, n // 4))
    s[copies[0]], u[copies[0]] = s[copies[1]], u[copies[1]]
    k = int(random.integers(1, min(n, 30) + 1))
    return s[n:], u[n:], s[:n], u[:n], k, float(random.choice([0.2, 1.0, 5.0, 50.0]))


@pytest.mark.parametrize("block", [2**12, 2**17])
def test_equals_brute_force_on_100_random_galleries_ties_included(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspective, "_PAIRS", block)
    ties = 0
    for seed in range(100):
        arguments = random_gallery(seed)
        scores, positions = brute_force(*arguments)
        found = nearest_introspective(*arguments)
        assert found.positions.tolist() == positions.tolist(), f"gallery {seed}"
        assert found.scores == pytest.approx(scores, abs=1e-6), f"gallery {seed}"
        ties += (np.diff(scores, axis=1) == 0).sum()
    assert ties > 1000


def test_the_bound_rules_out_nearly_everything_when_classes_are_compact() -> None:
    random = np.random.default_rng(0)
    centres = random.standard_normal((500, 32))
    g = unit_rows(np.repeat(centres, 40, 0) + 0.3 * random.standard_normal((20_000, 32)), "rows")
    q = unit_rows(centres[:100] + 0.3 * random.standard_normal((100, 32)), "rows")
    u_g, u_q = (np.abs(random.standard_normal((n, 32))).astype(np.float32) / 6 for n in (20_000, 100))
    found = nearest_introspective(q, u_q, g, u_g, 10)
    assert found.reranked < 0.01
    assert found.positions.tolist() == brute_force(q, u_q, g, u_g, 10, 5.0)[1].tolist()


def test_without_uncertainty_it_is_the_order_of_the_cosine() -> None:
    random = np.random.default_rng(1)
    s = unit_rows(random.standard_normal((2000, 16)), "rows")
    u = np.zeros((2000, 1), dtype=np.float32)
    assert nearest_introspective(s[:9], u[:9], s, u, 7).positions.tolist() == top_k(s[:9], s, 7)[1].tolist()


def test_one_gallery_row_everywhere_is_still_ordered_by_position() -> None:
    s, u = np.ones((9000, 4), dtype=np.float32) / 2, np.ones((9000, 3), dtype=np.float32)
    other = unit_rows([[1.0, 0.0, 0.0, 0.5]], "rows")
    for query in (s[:1], other):
        assert nearest_introspective(query, u[:1], s, u, 5).positions.tolist() == [[0, 1, 2, 3, 4]]


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 2), st.floats(0, 50), st.floats(0, 50), st.floats(0.01, 100))
def test_the_bound_is_below_the_distance_and_falls_in_the_uncertainty(
    alpha: float, beta: float, more: float, tau: float
) -> None:
    distance = introspective.introspective(np.array(alpha), np.array(beta), tau)
    assert 0 <= introspective.introspective(np.array(alpha), np.array(beta + more), tau) <= distance <= alpha
