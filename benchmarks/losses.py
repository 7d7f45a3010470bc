"""Time and memory of the losses, forward and backward, against pytorch-metric-learning in the same run.

    python benchmarks/losses.py                                   # on this machine's CPU
    python benchmarks/losses.py --device cuda
    python benchmarks/losses.py --sizes 128 --losses fast_ap --repeats 3 --no-resnet

Each cell is the median of alternated turns (peer, plain, introspective, peer, ...), so that a busy machine slows all
three alike. Rows are printed as they are measured: interrupting the run keeps what is there. A cell stops early, after
three turns or more, when its time is up.

- `peer / plain`: how many times faster the plain form is than pytorch-metric-learning;
- `introspective / plain`: what the uncertainty costs;
- `peak`: the most memory that a step of the introspective form holds at once, inputs not counted; and the peer's.

At the end the dearest introspective loss is compared with a training step of a ResNet-50 on the same batch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the memory profiler reports its start and end otherwise

import torch
from pytorch_metric_learning import losses as peer_losses
from pytorch_metric_learning import miners
from torch import Tensor
from torch.nn.functional import normalize, softplus

from idml_hf.losses import LOSSES, build_loss

DIM = 512
IMAGES_PER_CLASS = 4
RESNET_BATCH = 120


def peer(name: str, num_classes: int, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The same loss in pytorch-metric-learning, with the same hyper-parameters."""
    if name == "contrastive":
        return peer_losses.ContrastiveLoss(pos_margin=0, neg_margin=0.5)
    if name == "fast_ap":
        return peer_losses.FastAPLoss(num_bins=10)
    if name == "proxy_nca":
        return peer_losses.ProxyNCALoss(num_classes, DIM, softmax_scale=32).to(device)
    if name == "proxy_anchor":
        return peer_losses.ProxyAnchorLoss(num_classes, DIM).to(device)
    loss, miner = {
        "triplet_semihard": lambda: (peer_losses.TripletMarginLoss(0.1), miners.TripletMarginMiner(0.1, "semihard")),
        "margin_dw": lambda: (peer_losses.MarginLoss(learn_beta=True).to(device), miners.DistanceWeightedMiner()),
        "multi_similarity": lambda: (peer_losses.MultiSimilarityLoss(2, 50, 0.5), miners.MultiSimilarityMiner(0.1)),
    }[name]()
    return lambda semantic, labels: loss(semantic, labels, miner(semantic, labels))


def batch(size: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of P x K images around class centres, so that all losses find something to do."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(size) // IMAGES_PER_CLASS
    centres = torch.randn(size // IMAGES_PER_CLASS, DIM, generator=generator)
    semantic = normalize(centres[labels] + 2.0 * torch.randn(size, DIM, generator=generator))
    uncertainty = normalize(softplus(torch.randn(size, DIM, generator=generator)))
    leaves = (x.to(device).requires_grad_() for x in (semantic, uncertainty))
    return *leaves, labels.to(device)


def seconds(step: Callable[[], None], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(steps: list[Callable[[], None]], repeats: int, budget: float, device: str) -> tuple[list[float], int]:
    """Median seconds of each step, the steps taking turns after one unmeasured turn, and the number of turns."""
    start = time.perf_counter()
    turns: list[list[float]] = []
    while len(turns) <= repeats and (len(turns) <= 3 or time.perf_counter() - start < budget):
        turns.append([seconds(step, device) for step in steps])
    return [statistics.median(times) for times in zip(*turns[1:], strict=True)], len(turns) - 1


def peak_bytes(step: Callable[[], None], device: str) -> int:
    """The most memory that one step holds at once, on top of what was there before it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(name: str, size: int, repeats: int, budget: float, device: str) -> dict[str, float]:
    semantic, uncertainty, labels = batch(size, device)
    num_classes = size // IMAGES_PER_CLASS
    peers = peer(name, num_classes, device)
    plain, introspective = (build_loss(name, num_classes, DIM, form).to(device) for form in ("none", "ratio"))
    steps: list[Callable[[], None]] = [
        lambda: peers(semantic, labels).backward(),
        lambda: plain(semantic, None, labels).backward(),
        lambda: introspective(semantic, uncertainty, labels).backward(),
    ]
    times, turns = medians(steps, repeats, budget, device)
    return {
        "peer": times[0],
        "plain": times[1],
        "introspective": times[2],
        "turns": turns,
        "peak": peak_bytes(steps[2], device),
        "peak_peer": peak_bytes(steps[0], device),
    }


def resnet_step(repeats: int, budget: float, device: str) -> tuple[float, int]:
    """Seconds of a training step of a ResNet-50 on 120 images of 224 px, and how many images it was measured on."""
    import timm

    size = RESNET_BATCH if device != "cpu" else 8
    model = timm.create_model("resnet50", num_classes=DIM).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(size, 3, 224, 224, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    return medians([step], repeats, budget, device)[0][0] * RESNET_BATCH / size, size


def introspective_step(name: str, repeats: int, budget: float, device: str) -> float:
    """Seconds of the introspective loss on the batch of the ResNet-50."""
    semantic, uncertainty, labels = batch(RESNET_BATCH, device)
    loss = build_loss(name, RESNET_BATCH // IMAGES_PER_CLASS, DIM).to(device)
    return medians([lambda: loss(semantic, uncertainty, labels).backward()], repeats, budget, device)[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512, 2048], help="batch sizes, multiples of 4")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--repeats", type=int, default=9, help="turns a cell")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds after which a cell takes no more turns")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--no-resnet", action="store_true", help="leave out the training step")
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        print("Skipped: there is no CUDA device here")
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    how = args.repeats, args.budget, args.device

    hardware = torch.cuda.get_device_name() if args.device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{hardware}; torch {torch.__version__}; d = {DIM}; median of up to {args.repeats} turns\n")
    columns = ["loss", "B", "peer ms", "plain ms", "peer / plain", "introspective ms", "introspective / plain"]
    columns += ["peak MB", "peer's", "turns"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    speedups: list[float] = []
    try:
        for name in args.losses:
            for size in args.sizes:
                row = measure(name, size, *how)
                speedups.append(row["peer"] / row["plain"])
                print(
                    f"| {name} | {size} | {row['peer'] * 1e3:.2f} | {row['plain'] * 1e3:.2f} | {speedups[-1]:.2f} "
                    f"| {row['introspective'] * 1e3:.2f} | {row['introspective'] / row['plain']:.2f} "
                    f"| {row['peak'] / 1e6:.1f} | {row['peak_peer'] / 1e6:.1f} | {row['turns']} |",
                    flush=True,
                )
        print(f"\npeer / plain: {min(speedups):.2f} at worst, {statistics.geometric_mean(speedups):.2f} in the mean")
        if not args.no_resnet:
            step, images = resnet_step(min(args.repeats, 3), *how[1:])
            scaled = "" if images == RESNET_BATCH else f" (measured on {images} and scaled up)"
            dearest, name = max((introspective_step(name, *how), name) for name in args.losses)
            print(
                f"ResNet-50 training step, {RESNET_BATCH} images of 224 px{scaled}: {step * 1e3:.0f} ms; the dearest "
                f"introspective loss, {name}: {dearest * 1e3:.2f} ms, {dearest / step:.3%} of it"
            )
    except KeyboardInterrupt:
        print("\ninterrupted")


if __name__ == "__main__":
    main()
