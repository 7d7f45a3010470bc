"""Tables and figure of `benchmarks/trial.py`.

    python benchmarks/trial_report.py                                # tables of results/trial.jsonl
    python benchmarks/trial_report.py --figure docs/trial.png

An effect is a difference between runs that share set, direction, seed and loss, hence features, test images and the
order of batches. It is averaged over the losses first; the interval is Student's over what is left, one value a set,
direction and seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t

from idml_hf.losses import LOSSES
from idml_hf.reproduce.statistics import Difference, paired_difference

SETS = ("emoji", "icons")
TITLES = {
    "plain": "plain",
    "constant": "constant doubt",
    "published": "published",
    "introspective": "introspective",
    "released": "released",
    "pull": "discount on the pull only",
    "drop": "least probable dropped (PRISM)",
    "weigh": "weighted by confidence (ProcSim)",
}
COMPARED = ("constant", "published", "introspective")
# between images and against proxies
PUBLISHED = ("unit_norm", "relu")
COLORS = {"emoji": "#0072B2", "icons": "#D55E00"}
MARKERS = {"emoji": "o", "icons": "s"}

OPENED = "multi_similarity, miner open"

Cluster = tuple[str, str, int]
# MAP@R in points, by loss, arm, Mixup, then cluster
Scores = dict[tuple[str, str, bool], dict[Cluster, float]]


def read(path: Path, stage: str) -> list[dict[str, Any]]:
    """The lines of a stage."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["stage"] == stage]


def by_arm(rows: Iterable[dict[str, Any]], key: str = "map_at_r") -> Scores:
    """The measure by what was compared."""
    scores: Scores = {}
    for row in rows:
        if key in row:
            cell = scores.setdefault((row["loss"], arm_of(row), row["mixup"]), {})
            cell[row["dataset"], row["fold"], row["number"]] = 100 * row[key]
    return scores


def arm_of(row: dict[str, Any]) -> str:
    """The arm, of which the published one goes by its activation."""
    return "published" if row["arm"] in PUBLISHED else str(row["arm"])


def metric_effect(scores: Scores, loss: str, arm: str, mixup: bool = False) -> dict[Cluster, float]:
    """The arm less the plain loss."""
    return minus(scores.get((loss, arm, mixup), {}), scores.get((loss, "plain", mixup), {}))


def mixup_effect(scores: Scores, loss: str, arm: str) -> dict[Cluster, float]:
    """With Mixup less without."""
    return minus(scores.get((loss, arm, True), {}), scores.get((loss, arm, False), {}))


def interaction(scores: Scores, loss: str, arm: str) -> dict[Cluster, float]:
    """What Mixup adds to the effect of the metric."""
    return minus(metric_effect(scores, loss, arm, True), metric_effect(scores, loss, arm, False))


EFFECTS: dict[str, Callable[[Scores, str, str], dict[Cluster, float]]] = {
    "metric": metric_effect,
    "Mixup": mixup_effect,
    "interaction": interaction,
}


def minus(ours: dict[Cluster, float], plain: dict[Cluster, float]) -> dict[Cluster, float]:
    """Differences where both are there."""
    return {cluster: ours[cluster] - plain[cluster] for cluster in ours.keys() & plain.keys()}


def pooled(effects: list[dict[Cluster, float]], datasets: Iterable[str] = SETS) -> Difference | None:
    """Mean over losses, then over the clusters that all of them have."""
    shared = set.intersection(*(set(effect) for effect in effects))
    shared = {cluster for cluster in shared if cluster[0] in datasets}
    means = {i: float(np.mean([effect[c] for effect in effects])) for i, c in enumerate(sorted(shared))}
    return paired_difference(means, dict.fromkeys(means, 0.0))


def shown(difference: Difference | None) -> str:
    """A difference with its interval, in points; one value has none."""
    if difference is None:
        return ""
    if difference.pairs == 1:
        return f"{difference.mean:+.2f}"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def detectable(difference: Difference) -> float:
    """The effect that would have been found with a probability of 0.8."""
    n = difference.pairs
    error = (difference.high - difference.mean) / t.ppf(0.975, n - 1)
    return float((t.ppf(0.975, n - 1) + t.ppf(0.8, n - 1)) * error)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def choice_table(path: Path) -> str:
    """MAP@R on held-out training classes with the paper's settings and with the best, and what the best are."""
    rows = {(row["loss"], arm_of(row)): row for row in read(path, "choice")}
    lines = []
    for loss in LOSSES:
        arms = [rows[loss, arm] for arm in ("plain", *COMPARED) if (loss, arm) in rows]
        if arms:
            measured = (
                f"{100 * value:.1f}" for value in (arms[0]["published_map_at_r"], *(r["map_at_r"] for r in arms))
            )
            lines.append((f"`{loss}`", *measured, *map(settings_in_words, (arms[0], arms[-1]))))
    head = ("loss", "plain, the paper's settings", *(TITLES[arm] for arm in ("plain", *COMPARED)))
    return table((*head, "settings, plain", "settings, introspective"), lines)


def settings_in_words(row: dict[str, Any]) -> str:
    """The loss's own hyper-parameters, the learning rate and the doubt."""
    setting = row["setting"]
    words = [f"{name} {value:.3g}" for name, value in setting["loss_kwargs"].items()]
    words.append(f"rate {setting['learning_rate']:.2g}")
    return ", ".join([*words, f"doubt {setting['doubt']:.2g}"] if setting["doubt"] else words)


def effect_table(scores: Scores, opened: Scores) -> str:
    """Pooled effects, both sets together and each."""
    rows = []
    for arm in COMPARED:
        effects = [metric_effect(scores | opened, loss, arm) for loss in LOSSES]
        rows.append(effect_row("metric, miner open", arm, effects))
    for (name, effect), arm in itertools.product(EFFECTS.items(), ("plain", *COMPARED)):
        if arm == "plain" and name != "Mixup":
            continue
        effects = [effect(scores, loss, arm) for loss in LOSSES]
        rows.append(effect_row(name, arm, effects))
    return table(("effect", "arm", "both sets", *SETS, "detectable"), rows)


def effect_row(name: str, arm: str, effects: list[dict[Cluster, float]]) -> tuple[str, ...]:
    """Both sets together, each, and the effect that would have shown."""
    both = pooled(effects)
    power = f"{detectable(both):.2f}" if both and both.pairs > 1 else ""
    return (name, TITLES[arm], shown(both), *(shown(pooled(effects, [dataset])) for dataset in SETS), power)


def loss_table(scores: Scores, opened: Scores) -> str:
    """MAP@R of the plain loss, and what each arm adds, for each loss."""
    rows = []
    for title, loss, some in (
        *((loss, loss, scores) for loss in LOSSES),
        *((OPENED, loss, opened) for loss in LOSSES),
    ):
        plain = [pooled([some.get((loss, "plain", False), {})], [dataset]) for dataset in SETS]
        if any(plain):
            base = " / ".join(f"{p.mean:.1f}" if p else "" for p in plain)
            rows.append((f"`{title}`", base, *(shown(pooled([metric_effect(some, loss, arm)])) for arm in COMPARED)))
    return table(("loss", "plain, emoji / icons", *(TITLES[arm] for arm in COMPARED)), rows)


def memory_table(path: Path) -> str:
    """Plain and introspective, each without and with the memory of training images, and published."""
    rows = read(path, "compare")
    bare, memory = by_arm(rows), by_arm(rows, "with_reference_map_at_r")
    columns: list[tuple[str, Scores]] = [("plain", bare), ("plain", memory), ("published", bare)]
    columns += [("introspective", bare), ("introspective", memory)]
    lines = []
    for loss in LOSSES:
        means = [
            " / ".join(
                f"{value.mean:.1f}" if (value := pooled([scores.get((loss, arm, False), {})], [dataset])) else ""
                for dataset in SETS
            )
            for arm, scores in columns
        ]
        lines.append((f"`{loss}`", *means))
    head = ("plain", "plain, with memory", "published", "introspective", "introspective, with memory")
    return table(("loss", *head), lines)


def noise_table(path: Path) -> str:
    """MAP@R and how well wrong labels are found, means over losses, sets and seeds, differences to plain."""
    rows = read(path, "noise")
    lines = []
    for noise in sorted({row["noise"] for row in rows}):
        some = [row for row in rows if row["noise"] == noise]
        scores = by_arm(some)
        losses = sorted({row["loss"] for row in some})
        for arm in dict.fromkeys(map(arm_of, some)):
            mine = [row for row in some if arm_of(row) == arm]
            own = [pooled([scores.get((loss, arm, False), {})]) for loss in losses]
            level = np.mean([p.mean for p in own if p])
            gain = "" if arm == "plain" else shown(pooled([metric_effect(scores, loss, arm) for loss in losses]))
            found = []
            for key in ("auroc_uncertainty", "auroc_own_mean", "auroc_neighbours"):
                values = [row[key] for row in mine if key in row]
                found.append(f"{np.mean(values):.3f}" if values else "")
            lines.append((noise, TITLES[arm], f"{level:.1f}", gain, *found))
    return table(("labels", "arm", "MAP@R", "less plain", "found by u", "by own mean", "by neighbours"), lines)


def figure(scores: Scores, opened: Scores) -> Figure:
    """Effects with their intervals, pooled over losses, a panel an effect; small marks are single losses."""
    panels = (
        ("metric, less plain", metric_effect, scores),
        ("the same, miner open", metric_effect, scores | opened),
        ("with Mixup, less without", mixup_effect, scores),
        ("interaction", interaction, scores),
    )
    drawn = Figure(figsize=(11.5, 3.2), layout="constrained")
    grid = drawn.subplots(1, len(panels), sharey=True)
    for axes, (title, effect, some) in zip(grid, panels, strict=True):
        for (row, arm), (offset, dataset) in itertools.product(
            enumerate(("plain", *COMPARED)), zip((-0.16, 0.16), SETS, strict=True)
        ):
            if arm == "plain" and effect is not mixup_effect:
                continue
            effects = [effect(some, loss, arm) for loss in LOSSES]
            singles = [p.mean for one in effects if (p := pooled([one], [dataset]))]
            style = {"color": COLORS[dataset], "marker": MARKERS[dataset]}
            axes.scatter(singles, [row + offset] * len(singles), s=9, alpha=0.35, linewidths=0, **style)
            if both := pooled(effects, [dataset]):
                half = both.high - both.mean if both.pairs > 1 else None
                axes.errorbar(both.mean, row + offset, xerr=half, capsize=3, markersize=5, **style)
        axes.axvline(0, color="#666666", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("MAP@R, points")
    grid[0].set_yticks(range(1 + len(COMPARED)), [TITLES[arm] for arm in ("plain", *COMPARED)])
    grid[0].invert_yaxis()
    for dataset in SETS:
        grid[0].plot([], [], linestyle="", color=COLORS[dataset], marker=MARKERS[dataset], label=dataset)
    grid[0].legend(fontsize=8)
    return drawn


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results/trial.jsonl"))
    parser.add_argument("--figure", type=Path, help="picture to write")
    args = parser.parse_args()
    scores, opened = (by_arm(read(args.results, stage)) for stage in ("compare", "open"))
    print("Settings\n\n" + choice_table(args.results))
    print("Effects\n\n" + effect_table(scores, opened))
    print("Metric, by loss\n\n" + loss_table(scores, opened))
    released = metric_effect(scores, "proxy_anchor", "released")
    print(f"released, ProxyAnchor, less plain: {shown(pooled([released]))}\n")
    print("Memory\n\n" + memory_table(args.results))
    print("Wrong labels\n\n" + noise_table(args.results))
    if args.figure:
        figure(scores, opened).savefig(args.figure, dpi=130)


if __name__ == "__main__":
    main()
