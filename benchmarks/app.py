"""The app under load: many searches at once, memory after a thousand, and pictures too large to be decoded.

    python benchmarks/app.py                                  # 200 at once, then 1,000 searches
    python benchmarks/app.py --at-once 50 --searches 200 --json app.json

The app serves an index of `emoji-mini` (2,279 images, a small backbone at 48 pixels) in a process of its own; the
searches come through its interface for programs, by `gradio_client`, so uploading and queueing are part of the times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

SERVER = """
import sys, time
from idml_hf import IDMLIndex, IDMLModel
from idml_hf.app.page import launch_app
from idml_hf.data import load_images
model = IDMLModel.from_backbone("test_resnet", pretrained=False, embedding_dim=64, image_size=48)
app = launch_app(IDMLIndex.build(model, load_images("emoji-mini", split="test"), progress=False), block=False)
print("ready", app.local_url, flush=True)
time.sleep(3600)
"""


def timed(client: Any, picture: Path) -> float:
    """Seconds that one search takes."""
    from gradio_client import handle_file

    started = time.perf_counter()
    answer = client.predict(handle_file(picture), api_name="/search")
    assert answer["matches"], answer
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=200, help="searches that are sent at the same time")
    parser.add_argument("--searches", type=int, default=1000, help="searches after which memory is measured")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    from gradio_client import Client, handle_file

    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        picture = Path(folder) / "query.png"
        Image.fromarray(random.integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(picture)
        huge = Path(folder) / "huge.png"
        Image.new("1", (8000, 8000)).save(huge)
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = next(line.split()[1] for line in server.stdout if line.startswith("ready"))
            process = psutil.Process(server.pid)
            client = Client(url, verbose=False)
            for _ in range(20):
                timed(client, picture)
            before = process.memory_info().rss / 2**20
            with ThreadPoolExecutor(given.at_once) as pool:
                seconds = list(pool.map(lambda _: timed(client, picture), range(given.at_once)))
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: timed(client, picture), range(given.searches)))
            after = process.memory_info().rss / 2**20
            refused, started = 0, time.perf_counter()
            for _ in range(10):
                try:
                    client.predict(handle_file(huge), api_name="/search")
                except Exception as error:
                    refused += "8000 x 8000 pixels" in str(error)
            large = time.perf_counter() - started
            last = process.memory_info().rss / 2**20
        finally:
            server.kill()
            server.wait()
    figures = {
        "at_once": given.at_once,
        "p50_seconds": float(np.percentile(seconds, 50)),
        "p99_seconds": float(np.percentile(seconds, 99)),
        "searches": given.searches,
        "memory_before_mib": before,
        "memory_after_mib": after,
        "large_pictures_refused": refused,
        "large_pictures_seconds": large,
        "memory_after_large_mib": last,
    }
    print(
        f"{given.at_once} at once: half within {figures['p50_seconds']:.2f} s, p99 {figures['p99_seconds']:.2f} s\n"
        f"memory: {before:.0f} MiB, after {given.searches} searches {after:.0f} MiB\n"
        f"10 pictures of 64 million pixels: {refused} refused, {large:.1f} s in all, memory then {last:.0f} MiB"
    )
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
