"""Images per second of `IDMLTrainer` against a bare training loop: same trunk, batches in memory, loss and optimizer.

    python benchmarks/training.py
    python benchmarks/training.py --backbone resnet50 --image-size 224 --batch-size 120 --device cuda

All run in this process, in turn, so that the machine's state is shared; the ratio of the medians is what counts. Both
compute the same loss, with the degraded copies that the uncertainty learns from; a bare loop without shows their cost.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from idml_hf import IDMLForMetricLearning, IDMLTrainer, IDMLTrainingArguments
from idml_hf.training.degradation import degraded_views

SHARE = IDMLTrainingArguments.degraded_share


class Memory(Dataset):
    """Random images, normalised and ready."""

    def __init__(self, number: int, size: int, classes: int) -> None:
        self.pixel_values = torch.randn(number, 3, size, size)
        self.labels = np.arange(number) % classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: object) -> dict:
        index = getattr(key, "index", key)
        index = key[2] if isinstance(key, tuple) else index
        return {"pixel_values": self.pixel_values[index], "labels": int(self.labels[index])}


def build(options: argparse.Namespace, classes: int, ranking: float = 1.0) -> IDMLForMetricLearning:
    torch.manual_seed(0)
    config = {"embedding_dim": 128, "num_train_classes": classes, "uncertainty_ranking": ranking}
    return IDMLForMetricLearning.from_backbone(options.backbone, pretrained=False, **config)


def bare(options: argparse.Namespace, data: Memory, classes: int, ranking: float = 1.0) -> float:
    """Seconds of a loop of forward, loss, backward and step, in channels-last order."""
    model = build(options, classes, ranking).to(options.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    size = options.batch_size
    started = time.perf_counter()
    for start in range(0, len(data) // size * size, size):
        pixel_values = data.pixel_values[start : start + size].to(options.device)
        labels = torch.as_tensor(data.labels[start : start + size], device=options.device)
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        views = degraded_views(pixel_values, SHARE, seed=0, step=start // size) if ranking else None
        model(pixel_values, labels=labels, degraded_pixel_values=views).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if options.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def trainer(options: argparse.Namespace, data: Memory, classes: int) -> float:
    """Seconds of `IDMLTrainer.train` with its logging and clipping, without saving."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = IDMLTrainingArguments(
            folder,
            per_device_train_batch_size=options.batch_size,
            num_train_epochs=1,
            learning_rate=1e-4,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=10,
            use_cpu=options.device == "cpu",
            dataloader_pin_memory=options.device == "cuda",
        )
        run = IDMLTrainer(build(options, classes), arguments, train_dataset=data)
        run.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        return run.train().metrics["train_runtime"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=120)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("Skipped: there is no CUDA device here")
        return
    classes = 60
    data = Memory(options.steps * options.batch_size, options.image_size, classes)
    loops = {
        "bare loop": bare,
        "IDMLTrainer": trainer,
        "bare loop, uncertainty not ranked": partial(bare, ranking=0.0),
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(options.repeats + 1):
        for name, function in loops.items():
            seconds = function(options, data, classes)
            if repeat:  # the first round warms up
                times[name].append(seconds)
    print(f"{options.backbone}, {options.image_size} px, batch {options.batch_size}, {options.device}")
    print("| | images / s (median) | ratio |\n|---|---|---|")
    base = statistics.median(times["bare loop"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {len(data) / median:.0f} | {base / median:.2f} |")


if __name__ == "__main__":
    main()
