"""Images per second of the input pipeline alone: ours against the usual one, in one run.

    python benchmarks/data.py [--images 512] [--workers 2] [--rounds 5] [--json FILE]

Both read the same JPEG files (500x375, crops of two photographs), decode them in full, crop a random area, resize it
to 224x224, flip at random, normalise and batch, in the same `DataLoader` with the same number of workers.

- usual: Pillow decodes, torchvision v2 transforms work on Pillow images, normalised floats are sent by the workers.
- ours: `ImageSet` and `TrainImages`, once with uint8 batches normalised by the receiver, once normalised by the
  workers; each draw is seeded by (seed, epoch, position, index).

The rounds alternate; a pipeline's figure is its median, and the ratio is the median of the ratios within a round. CPU
time is printed beside: unlike images per second it says the same on a machine that is busy with something else.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from idml_hf.data import Draw, ImageSet, Normalizer, TrainImages, training_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64


def write_photographs(folder: Path, number: int) -> list[Path]:
    """`number` JPEG files of 500x375 pixels, quality 90."""
    photographs = [PIL.Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    paths = []
    for i in range(number):
        photograph = photographs[i % len(photographs)]
        scale = rng.uniform(0.8, 1.0)
        width, height = int(500 * scale), int(375 * scale)
        left, top = rng.integers(photograph.width - width), rng.integers(photograph.height - height)
        crop = photograph.crop((left, top, left + width, top + height)).resize(
            (500, 375), PIL.Image.Resampling.BICUBIC
        )
        paths.append(folder / f"{i:05d}.jpg")
        crop.save(paths[-1], quality=90)
    return paths


class UsualImages(Dataset):
    """What most training scripts do."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(224),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, object]:
        with PIL.Image.open(self.paths[index]) as image:
            return {"pixel_values": self.transform(image.convert("RGB")), "labels": 0}


def draws(number: int) -> list[list[Draw]]:
    """Batches in random order, as our samplers give them."""
    order = torch.randperm(number).tolist()
    keys = [Draw(0, position, index) for position, index in enumerate(order)]
    return [keys[start : start + BATCH] for start in range(0, number, BATCH)]


def pipelines(paths: list[Path], workers: int) -> dict[str, Callable[[], Iterable[torch.Tensor]]]:
    """Name -> a function that starts an epoch of normalised float batches."""
    images = ImageSet.from_files(paths, np.zeros(len(paths), dtype=np.int64), ["photograph"])
    normalize = Normalizer(MEAN, STD)

    def usual() -> Iterable[torch.Tensor]:
        loader = DataLoader(UsualImages(paths), BATCH, shuffle=True, num_workers=workers)
        return (batch["pixel_values"] for batch in loader)

    def ours_uint8() -> Iterable[torch.Tensor]:
        dataset = TrainImages(images, training_transform(224))
        loader = DataLoader(dataset, batch_sampler=draws(len(paths)), num_workers=workers)
        return (normalize(batch["pixel_values"]) for batch in loader)

    def ours_float() -> Iterable[torch.Tensor]:
        dataset = TrainImages(images, training_transform(224, MEAN, STD))
        loader = DataLoader(dataset, batch_sampler=draws(len(paths)), num_workers=workers)
        return (batch["pixel_values"] for batch in loader)

    return {"usual": usual, "ours, uint8 sent": ours_uint8, "ours, floats sent": ours_float}


def measure(start: Callable[[], Iterable[torch.Tensor]]) -> tuple[float, float]:
    """Images per second from the first batch to the last, and CPU milliseconds an image of all processes together."""
    cpu_before = cpu_seconds()
    batches = iter(start())
    first = len(next(batches))
    begin = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    rate = count / (time.perf_counter() - begin)
    del batches  # ends the workers, whose time counts only then
    return rate, 1000 * (cpu_seconds() - cpu_before) / (first + count)


def cpu_seconds() -> float:
    """CPU time of this process and of its ended children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = pipelines(write_photographs(Path(folder), args.images), args.workers)
        rounds = [{name: measure(start) for name, start in runs.items()} for _ in range(args.rounds)]
    result = {
        name: {
            "images_per_second": statistics.median(figures[name][0] for figures in rounds),
            "ratio": statistics.median(figures[name][0] / figures["usual"][0] for figures in rounds),
            "cpu_ms_per_image": statistics.median(figures[name][1] for figures in rounds),
            "cpu_ratio": statistics.median(figures["usual"][1] / figures[name][1] for figures in rounds),
        }
        for name in runs
    }
    for name, figures in result.items():
        print(
            f"{name:18s} {figures['images_per_second']:7.0f} images/s  {figures['ratio']:.2f} x usual"
            f"   {figures['cpu_ms_per_image']:.2f} CPU ms/image  {figures['cpu_ratio']:.2f} x less"
        )
    if args.json is not None:
        args.json.write_text(json.dumps({"workers": args.workers, **result}, indent=2))


if __name__ == "__main__":
    main()
