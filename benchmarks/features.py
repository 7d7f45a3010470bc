"""Heads on frozen features and on embeddings: time, peak memory and retrieval on test classes.

    python benchmarks/features.py --weights tf_efficientnet_lite0.in1k.safetensors --emoji DIR --icons DIR --json FILE
    python benchmarks/features.py --rows 100000 --json FILE
    python benchmarks/features.py --rows 1000000 --head-only

Each line is a command of its own, with its wall-clock and processor seconds and its peak resident memory. `--rows`
makes up embeddings of 384 values, a class for every 50 of them, and fits, indexes and calibrates. The folder of emoji
holds that data set in full, the one of icons `train.parquet` and `test.parquet` with a column `family`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BACKBONE = "tf_efficientnet_lite0"
WIDTH, EACH, BLOCK = 384, 50, 50_000
SHOWN = ("recall_at_1", "map_at_r", "r_auroc", "confidence_auroc")


def measured(*arguments: Any) -> dict[str, float]:
    """Run a command of idml-hf; its seconds on the wall, those of the processor, and its peak memory in MB."""
    started = time.monotonic()
    command = [sys.executable, "-m", "idml_hf", *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    said = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}\n{said[-2000:]}")
    return {
        "seconds": time.monotonic() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def on_pictures(name: str, data: list[str], weights: str, size: int, dim: int, folder: Path) -> dict[str, Any]:
    """Features of training and test pictures, and heads on them."""
    store, model = folder / f"{name}-features", folder / f"{name}-model"
    backbone = ("--backbone", BACKBONE, "--weights", weights, "--image-size", size)
    lines = {
        "features": measured("features", *backbone, *data, "--output", store),
        "train": measured("train", "--features", store, "--embedding-dim", dim, "--output", model),
    }
    metrics = json.loads((model / "metrics.json").read_text())
    images = json.loads((store / "features.json").read_text())["splits"]["train"]["images"]
    head = {"head_seconds": images / metrics["train_images_per_second"]}
    return {"data": name, **lines, **head, **{key: metrics[key] for key in SHOWN}}


def made_up(path: Path, rows: int, first_class: int) -> None:
    """Write embeddings: noise around the centres of classes."""
    random = np.random.default_rng(first_class)
    classes = max(2, rows // EACH)
    centres = random.standard_normal((classes, WIDTH), dtype=np.float32)
    schema = pa.schema([("embedding", pa.list_(pa.float32(), WIDTH)), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, BLOCK):
            labels = random.integers(0, classes, min(BLOCK, rows - start))
            x = centres[labels] + 2.5 * random.standard_normal((len(labels), WIDTH), dtype=np.float32)
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), WIDTH)
            writer.write_table(pa.table({"embedding": embedding, "label": labels + first_class}, schema=schema))


def on_embeddings(rows: int, head_only: bool, folder: Path) -> dict[str, Any]:
    """Heads on embeddings, and an index of them that is calibrated with 10,000 others."""
    made_up(folder / "x.parquet", rows, 0)
    fitted = measured("train", "--features", folder / "x.parquet", "--output", folder / "m")
    result: dict[str, Any] = {"data": f"{rows} x {WIDTH}", "train": fitted}
    if not head_only:
        made_up(folder / "other.parquet", 10_000, rows)
        files = ("--features", folder / "x.parquet", "--calibrate", folder / "other.parquet")
        result["index"] = measured("index", folder / "m", *files, "--output", folder / "i")
    return result


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="ImageNet weights of tf_efficientnet_lite0")
    parser.add_argument("--emoji", help="folder of the data set emoji")
    parser.add_argument("--icons", help="folder of the data set icons")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--embedding-dim", type=int, default=128)
    parser.add_argument("--rows", type=int, help="number of made-up embeddings")
    parser.add_argument("--head-only", action="store_true", help="fit heads to made-up embeddings, and no more")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    data = {
        "emoji": options.emoji and ["--dataset", "emoji", "--root", options.emoji],
        "icons": options.icons and ["--dataset", options.icons, "--group-column", "family"],
    }
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in data.items():
            if arguments:
                sizes = options.image_size, options.embedding_dim
                results.append(on_pictures(name, arguments, options.weights, *sizes, Path(folder)))
                print(json.dumps(results[-1], indent=1))
        if options.rows:
            results.append(on_embeddings(options.rows, options.head_only, Path(folder)))
            print(json.dumps(results[-1], indent=1))
    if options.json:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        report = {"cores": os.cpu_count(), "load": load, "results": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
