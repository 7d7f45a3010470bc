"""Time and peak memory of retrieval evaluation at the size of Stanford Online Products, beside its peers.

    python benchmarks/evaluation.py                                     # 60,502 x 512, 11,316 classes
    python benchmarks/evaluation.py --quick                             # seconds
    python benchmarks/evaluation.py --items 200000 --dimensions 128 --classes 20000 --systems idml_hf
    python benchmarks/evaluation.py --systems idml_hf,bare --device cuda
    python benchmarks/evaluation.py --systems clustering                # NMI and F1, minutes

Each system runs in a process of its own, in turn, several rounds; medians are printed. `bare` is the floor: a matrix
product in blocks into one buffer and `torch.topk`, with none of the metrics, no removal of the query and no care for
ties; its k is 101 for R@100, and that of R-precision for `bare (small k)`. Peak memory is that of the whole process
(what importing takes is stated beside it), and on a GPU the peak that torch allocated there. Where others use the
machine, compare CPU seconds, the sum over threads, rather than seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

KS = (1, 10, 100)
SYSTEMS = ("idml_hf", "bare", "bare (small k)", "pytorch-metric-learning")


def make_data(folder: Path, items: int, dimensions: int, classes: int) -> None:
    """Unit vectors around class centres, as hard as Stanford Online Products: R@1 is about 0.8."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(items) % classes)
    spread = max(dimensions**0.5 / 3.87 - 1, 0.1) ** 0.5
    centres = rng.standard_normal((classes, dimensions), dtype=np.float32)
    x = np.empty((items, dimensions), dtype=np.float32)
    for at in range(0, items, 10_000):
        part = centres[labels[at : at + 10_000]]
        part += spread * rng.standard_normal(part.shape, dtype=np.float32)
        x[at : at + 10_000] = part / np.linalg.norm(part, axis=1, keepdims=True)
    np.save(folder / "embeddings.npy", x)
    np.save(folder / "labels.npy", labels + 2**24)


def run_idml_hf(x: np.ndarray, labels: np.ndarray, device: str) -> dict[str, Any]:
    """`retrieval_metrics`, with the time between the calls of the search counted as metric arithmetic."""
    from idml_hf.evaluation import ranking as module
    from idml_hf.evaluation import retrieval_metrics

    spent = {"top_k": 0.0, "best_rank": 0.0, "score": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            if device == "cuda":
                torch.cuda.synchronize()
            spent[name] += time.perf_counter() - start
            return result

        return call

    module.Block.top_k = timed("top_k", module.Block.top_k)  # type: ignore[method-assign]
    module.Block.best_rank = timed("best_rank", module.Block.best_rank)  # type: ignore[method-assign]
    module._score_block = timed("score", module._score_block)
    metrics = retrieval_metrics(x, labels, KS, device=device)
    arithmetic = spent["score"] - spent["top_k"] - spent["best_rank"]
    return metrics | {"metric_arithmetic_seconds": arithmetic, "ranks_beyond_candidates_seconds": spent["best_rank"]}


def run_bare(k: int, block: int = 1024) -> Callable[..., dict[str, Any]]:
    """The floor: scores in blocks and `topk`."""

    def run(x: np.ndarray, labels: np.ndarray, device: str) -> dict[str, Any]:
        gallery = torch.from_numpy(x).to(device)
        buffer = torch.empty(block, len(gallery), device=device)
        nearest = []
        for queries in gallery.split(block):
            scores = torch.mm(queries, gallery.T, out=buffer[: len(queries)])
            nearest.append(scores.topk(k).indices)
        torch.cat(nearest).cpu()
        return {}

    return run


def run_pytorch_metric_learning(x: np.ndarray, labels: np.ndarray, device: str) -> dict[str, Any]:
    """Its `AccuracyCalculator` with the least memory it can do with."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device(device))
    # It turns labels into float32, which cannot tell apart labels above 2**24.
    result = calculator.get_accuracy(x, np.unique(labels, return_inverse=True)[1])
    return dict(zip(("recall_at_1", "r_precision", "map_at_r"), (result[name] for name in names), strict=True))


def run_clustering(x: np.ndarray, labels: np.ndarray, device: str) -> dict[str, Any]:
    """NMI and F1."""
    from idml_hf.evaluation import clustering_metrics

    return clustering_metrics(x, labels)


def run_system(name: str, folder: Path, device: str, threads: int) -> dict[str, Any]:
    """Runs one system in this process."""
    torch.set_num_threads(threads)
    x, labels = np.load(folder / "embeddings.npy"), np.load(folder / "labels.npy")
    small_k = int(np.unique(labels, return_counts=True)[1].max()) + 1
    runners: dict[str, Callable[..., dict[str, Any]]] = {
        "idml_hf": run_idml_hf,
        "bare": run_bare(min(max(KS) + 1, len(x))),
        "bare (small k)": run_bare(min(small_k, len(x))),
        "pytorch-metric-learning": run_pytorch_metric_learning,
        "clustering": run_clustering,
    }
    # Imports and the first use of a library are not what is compared.
    runners[name](x[:500], labels[:500] % 50, device)
    before = _memory("VmRSS")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = runners[name](x, labels, device)
    if device == "cuda":
        torch.cuda.synchronize()
    result |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
    result |= {"peak_gb": _memory("VmHWM"), "start_gb": before}
    if device == "cuda":
        result["gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return result


def _memory(field: str) -> float:
    """A line of /proc/self/status in GB; VmHWM is the peak of this process alone, unlike `ru_maxrss`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError(f"no {field} in /proc/self/status")


def child(*arguments: str) -> str:
    """Runs this file in a process of its own and returns the last line it prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip().splitlines()[-1]


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Medians over rounds as a markdown table, with times relative to the first `bare` there is."""
    median = {
        name: {
            key: statistics.median(r[key] for r in rounds) if isinstance(value, float) else value
            for key, value in rounds[0].items()
        }
        for name, rounds in results.items()
    }
    floor = median.get("bare") or next(iter(median.values()))
    columns = ["recall_at_1", "recall_at_10", "recall_at_100", "r_precision", "map_at_r", "nmi", "f1"]
    columns = [c for c in columns if any(c in row for row in median.values())]
    gpu = any("gpu_gb" in row for row in median.values())
    head = [
        "system",
        "seconds",
        "ratio",
        "CPU seconds",
        "ratio",
        "peak GB",
        "of which at start",
        *(["GPU GB"] if gpu else []),
        *columns,
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, row in median.items():
        cells = [name]
        for key in ("seconds", "cpu_seconds"):
            cells += [f"{row[key]:.1f}", f"{row[key] / floor[key]:.2f}"]
        cells += [f"{row['peak_gb']:.2f}", f"{row['start_gb']:.2f}"]
        cells += [f"{row['gpu_gb']:.2f}"] if gpu else []
        cells += [f"{row[c]:.4f}" if c in row else "" for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    for name, row in median.items():
        if "metric_arithmetic_seconds" in row:
            lines.append(
                f"\n{name}: metric arithmetic after the search {row['metric_arithmetic_seconds']:.2f} s; "
                f"exact ranks of first hits beyond the candidates {row['ranks_beyond_candidates_seconds']:.2f} s"
            )
    return "\n".join(lines)


def main() -> None:
    """Makes the data, runs the systems in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=60_502)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--classes", type=int, default=11_316)
    parser.add_argument("--quick", action="store_true", help="6,000 x 64, 1,100 classes, one round")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write every round here")
    parser.add_argument("--make-data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, metavar=("SYSTEM", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        print("Skipped: there is no CUDA device here")
        return
    if args.quick:
        args.items, args.dimensions, args.classes, args.rounds = 6_000, 64, 1_100, 1
    size = ["--items", str(args.items), "--dimensions", str(args.dimensions), "--classes", str(args.classes)]
    if args.make_data:
        make_data(args.make_data, args.items, args.dimensions, args.classes)
        print("done")
        return
    if args.run:
        print(json.dumps(run_system(args.run[0], Path(args.run[1]), args.device, args.threads)))
        return

    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        child("--make-data", folder, *size)
        options = ["--device", args.device, "--threads", str(args.threads)]
        for turn in range(args.rounds):
            for name in args.systems.split(","):
                try:
                    results.setdefault(name, []).append(json.loads(child("--run", name, folder, *options)))
                    print(f"round {turn + 1}, {name}: {results[name][-1]['seconds']:.1f} s", file=sys.stderr)
                except RuntimeError as error:
                    print(f"{name} failed: {error}", file=sys.stderr)
    results = {name: rounds for name, rounds in results.items() if rounds}
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    print(f"{args.items:,} x {args.dimensions}, {args.classes:,} classes, {where}, median of {args.rounds}\n")
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
