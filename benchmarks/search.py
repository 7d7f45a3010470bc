"""Exact ranking by the introspective distance against faiss and against brute force, in one run.

    python benchmarks/search.py                          # 1,000,000 x 128, 100 queries: about 5 GB of memory
    python benchmarks/search.py --items 100000 --turns 3
    python benchmarks/search.py --embeddings out/embeddings.parquet     # what `idml-hf embed` wrote, with jitter

Compared, on the same arrays and threads, in turns:

- `faiss`: faiss's flat cosine search, which knows nothing of uncertainty;
- `bound`: [`idml_hf.search.introspective.nearest_introspective`], which finds what comparing everything finds;
- `brute`: D of all pairs in float32, a block of items at a time, by `idml_hf.similarity.introspective_distance`.

The first 10 queries are also compared with all pairs in double precision, `top_k(metric="introspective")`.

`re-ranked` is the share of pairs that the bound does not rule out; memory is the most a call holds beyond its inputs.
The first gallery has the norms of a trained model's uncertainties; the others try what could make the bound useless.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import pyarrow.parquet as pq
import torch

from idml_hf.search.exact import top_k
from idml_hf.search.introspective import nearest_introspective
from idml_hf.similarity import introspective_distance

TAU, BLOCK, CHECKED = 5.0, 8192, 10
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def uncertainties(random: np.random.Generator, number: int, dim: int, signed: bool = False) -> np.ndarray:
    """Norms 0.96 +- 0.15 and a mean cosine of 0.5 between two of them: those of a model trained with a budget."""
    rows = random.standard_normal((number, dim), dtype=np.float32)
    rows = rows if signed else np.abs(rows) ** 1.5
    return unit(rows) * random.normal(0.96, 0.15, (number, 1)).clip(0.4, 1.7).astype(np.float32)


def gallery(name: str, items: int, queries: int, dim: int) -> Arrays:
    """Query and gallery embeddings, with their uncertainty embeddings."""
    random = np.random.default_rng(0)
    total = items + queries
    common, spread = (0.7, 0.6) if name != "no classes" else (0.0, 1.0)
    rows = spread * random.standard_normal((total, dim), dtype=np.float32)
    if name != "no classes":
        centres = random.standard_normal((items // 10, dim), dtype=np.float32)
        rows += centres[random.integers(0, len(centres), total)] + common * random.standard_normal(dim)
    u = uncertainties(random, total, dim, signed=name == "signed u")
    if name == "u 20 times larger":
        u *= 20
    if name == "few u are huge":
        u[random.integers(0, items, 100)] *= 50
    s = unit(rows)
    if name == "one image everywhere":
        s[: items // 2], u[: items // 2] = s[0], u[0]
    return s[items:], u[items:], s[:items], u[:items]


def from_file(path: Path, items: int, queries: int) -> Arrays:
    """Rows of a parquet file of embeddings, drawn again and again with a little noise."""
    table = pq.read_table(path, columns=["semantic", "uncertainty_embeds"])
    s, u = (np.stack(table[name].to_numpy()).astype(np.float32) for name in table.column_names)
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(s), (2, items + queries))
    jitter = 0.3 / s.shape[1] ** 0.5 * random.standard_normal((items + queries, s.shape[1]), dtype=np.float32)
    s, u = unit(s[drawn[0]] + jitter), u[drawn[1]]
    return s[items:], u[items:], s[:items], u[:items]


def brute_force(s_q: np.ndarray, u_q: np.ndarray, s_g: np.ndarray, u_g: np.ndarray, k: int) -> torch.Tensor:
    """The k smallest distances of each query, float32 (Q, k)."""
    queries, uncertainty, items, item_uncertainty = map(torch.from_numpy, (s_q, u_q, s_g, u_g))
    best = torch.full((len(queries), k), torch.inf)
    for start in range(0, len(items), BLOCK):
        block = slice(start, start + BLOCK)
        distance = introspective_distance(queries, uncertainty, items[block], item_uncertainty[block], tau=TAU)
        best = torch.cat([best, distance.topk(min(k, distance.shape[1]), largest=False).values], 1)
        best = best.topk(k, largest=False).values
    return best


def measured(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, seconds, and the most memory held meanwhile beyond that before, in MB."""
    process, stop = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    return result, seconds, max(0, peak - before) / 2**20


def compare(name: str, arrays: Arrays, k: int, turns: int) -> None:
    s_q, u_q, s_g, u_g = arrays
    ways: dict[str, Callable[[], Any]] = {
        "faiss": lambda: faiss.knn(s_q, s_g, k, faiss.METRIC_INNER_PRODUCT),
        "bound": lambda: nearest_introspective(s_q, u_q, s_g, u_g, k, TAU),
        "brute": lambda: brute_force(s_q, u_q, s_g, u_g, k),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    memory, results = {}, {}
    for _ in range(turns):
        for way, call in ways.items():
            results[way], elapsed, memory[way] = measured(call)
            seconds[way].append(elapsed)
    median = {way: float(np.median(values)) for way, values in seconds.items()}
    options = {"uncertainty": u_q[:CHECKED], "gallery_uncertainty": u_g, "tau": TAU}
    exact = top_k(s_q[:CHECKED], s_g, k, metric="introspective", **options)[1].numpy()
    equal = bool((exact == results["bound"].positions[:CHECKED]).all())
    ratios = median["bound"] / median["faiss"], median["bound"] / median["brute"]
    print(
        f"{name:22}{median['faiss']:7.2f}{median['bound']:7.2f}{median['brute']:7.2f}"
        f"{ratios[0]:10.2f}{ratios[1]:10.2f}{results['bound'].reranked:12.4%}"
        f"{memory['faiss']:9.0f}{memory['bound']:7.0f}{memory['brute']:7.0f}  {'equal' if equal else 'DIFFERENT'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--embeddings", type=Path, help="parquet file of `idml-hf embed`, for the first gallery")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)

    print(f"{options.items} x {options.dim}, {options.queries} queries, k = {options.k}, {options.threads} threads;")
    print("medians of seconds; ratios of `bound` to the others; memory in MB\n")
    print(
        f"{'gallery':22}{'faiss':>7}{'bound':>7}{'brute':>7}{'/ faiss':>10}{'/ brute':>10}"
        f"{'re-ranked':>12}{'faiss':>9}{'bound':>7}{'brute':>7}"
    )
    first = "as trained"
    names = (first, "no classes", "signed u", "few u are huge", "u 20 times larger", "one image everywhere")
    for name in names:
        if name == first and options.embeddings is not None:
            arrays = from_file(options.embeddings, options.items, options.queries)
        else:
            arrays = gallery(name, options.items, options.queries, options.dim)
        compare(name, arrays, options.k, options.turns)


if __name__ == "__main__":
    main()
