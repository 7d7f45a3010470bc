"""Plain losses against the introspective metric on frozen features, both sides tuned alike: seconds a run.

    python benchmarks/trial.py tune FEATURES         # settings of each loss and arm, on held-out training classes
    python benchmarks/trial.py choose                # the best of them are written down, once
    python benchmarks/trial.py recipes FOLDER        # those that beat the paper's settings on both sets, as recipes
    python benchmarks/trial.py compare FEATURES      # metric x Mixup, seven losses, on test classes
    python benchmarks/trial.py noise FEATURES        # wrong labels
    python benchmarks/trial.py miner FEATURES        # Multi-Similarity with its miner open
    python benchmarks/trial_report.py --figure docs/trial.png

FEATURES is a folder with what `idml-hf features --dataset emoji --output FEATURES/emoji` has written, and the same of
the icons; or with `emoji-train.npz`, `emoji-test.npz`, `icons-train.npz` and `icons-test.npz`, arrays `features`
(N, F), `labels` and `groups` (N,). Each run is one line of the results, written when it is done; a run that is there
is not made again, so the commands can be stopped and given again at any time.

A run trains linear heads on principal components of the features, computed on its training classes, with the package's
own losses, heads, Mixup and ranking. What the arms differ in is the uncertainty alone:

- `plain`: none;
- `constant`: every image has the same, which nothing learns: the shape of the metric without introspection;
- `unit_norm`, `relu`: as published, the metric trains it; `released`: the authors' code (ProxyAnchor);
- `introspective`: the package's, ranked by hardness, which the metric reads.

Its size relative to the temperature, `doubt` = ||u|| / tau, is tuned with the learning rate and the loss's own
hyper-parameters; the plain loss has as many trials for one dimension less.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot, softplus
from tqdm.auto import tqdm

from idml_hf import IDMLConfig
from idml_hf.configuration_idml import REFERENCE_WEIGHT
from idml_hf.data import derive_seed, generator
from idml_hf.evaluation import retrieval_metrics
from idml_hf.evaluation.uncertainty import auroc
from idml_hf.feature_statistics import normalised
from idml_hf.losses import LOSSES, PROXY_LOSSES, MetricLoss, PairLoss, Pairs, ProxyLoss, build_loss
from idml_hf.losses.uncertainty_ranking import UncertaintyRanking
from idml_hf.reference_memory import ReferenceMemory
from idml_hf.training.feature_store import FeatureStore, is_store
from idml_hf.training.mixing import mix_batch
from idml_hf.training.sampler import PKBatchSampler, RandomBatchSampler
from idml_hf.uncertainty_head import HIDDEN_FEATURES, UncertaintyHead

SETS = ("emoji", "icons")
COMPONENTS = 256
DIM = 64
CLASSES, IMAGES = 32, 4
EPOCHS = 4
WARMUP = 0.1
PROXY_RATE = 3.0
REFERENCE = 512
TAU = IDMLConfig.tau
TRIALS = 10
EXPLORED = 8
HELD_OUT = 0.2

# what each loss's own hyper-parameters are tuned over: from, to, and whether in logarithm
SPACE: dict[str, dict[str, tuple[float, float, bool]]] = {
    "contrastive": {"pos_margin": (0.0, 0.4, False), "neg_margin": (0.4, 1.3, False)},
    "triplet_semihard": {"margin": (0.03, 0.5, True)},
    "margin_dw": {"margin": (0.05, 0.5, False), "beta": (0.7, 1.3, False)},
    "multi_similarity": {"alpha": (1.0, 8.0, True), "beta": (10.0, 80.0, True), "base": (0.3, 0.9, False)},
    "fast_ap": {"num_bins": (6, 40, True)},
    "proxy_nca": {"scale": (3.0, 40.0, True)},
    "proxy_anchor": {"margin": (0.0, 0.5, False), "alpha": (8.0, 64.0, True)},
}
RATE = (1e-3, 3e-2, True)
DOUBT = (0.02, 0.5, True)
# the paper's own settings, trial 0 of every search, with the rate that the package fits heads by
# no pair is too easy for the miner of Multi-Similarity
OPEN = {"epsilon": 2.0}
START = {"learning_rate": 5e-3, "doubt": 0.2}

# whose memory of training images is measured as well, each without and with it
REMEMBERING = ("plain", "introspective")
ARMS = ("plain", "constant", "unit_norm", "relu", "introspective", "released")
NOISE_LOSSES = ("proxy_anchor", "proxy_nca", "contrastive", "multi_similarity")
NOISE_ARMS = ("plain", "constant", "unit_norm", "relu", "introspective", "pull", "drop", "weigh")
# what has no search of its own takes the settings of what it is built on
BUILT_ON = {"drop": "plain", "weigh": "plain", "pull": "introspective"}
NOISES = ("symmetric-40", "similar-20", "symmetric-20")


class Store(NamedTuple):
    """Features of one file."""

    features: Tensor
    labels: Tensor
    groups: Tensor

    def take(self, chosen: Tensor) -> Store:
        """Some of the rows."""
        return Store(*(column[chosen] for column in self))


@dataclass(frozen=True)
class Setting:
    """What is tuned.

    Args:
        learning_rate: of the heads; that of proxies is three times as large.
        loss_kwargs: the loss's own hyper-parameters.
        doubt: ||u|| / tau of an image, at the start of training where training may change it.
    """

    learning_rate: float
    loss_kwargs: dict[str, Any] = field(default_factory=dict)
    doubt: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One run."""

    stage: str
    dataset: str
    fold: str
    loss: str
    arm: str
    mixup: bool
    noise: str
    number: int

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return "/".join(map(str, vars(self).values()))


def read_store(folder: Path, dataset: str, split: str) -> Store:
    """Features of a file, with labels and groups as integers from 0."""
    if is_store(folder / dataset):
        rows = FeatureStore.open(folder / dataset).splits[split]
        if rows.groups is None:
            raise SystemExit(f"{folder / dataset} has no groups: store the features with --group-column")
        features, labels, groups = rows.vectors[np.arange(len(rows))], rows.labels, rows.groups
    else:
        with np.load(folder / f"{dataset}-{split}.npz") as stored:
            features, labels, groups = (stored[name] for name in ("features", "labels", "groups"))
    numbers = (torch.from_numpy(np.unique(column, return_inverse=True)[1]) for column in (labels, groups))
    return Store(torch.from_numpy(features.astype(np.float32)), *numbers)


@functools.cache
def fold(folder: Path, dataset: str, name: str) -> tuple[Store, Store]:
    """Training and test images in principal components of the training images.

    `held-out` is a fifth of the training file's classes against the others, `forward` the training file and the test
    file, `backward` the two exchanged.
    """
    if name == "held-out":
        whole = read_store(folder, dataset, "train")
        classes = generator(0).permutation(int(whole.labels.max()) + 1)
        held = torch.isin(whole.labels, torch.from_numpy(classes[: int(HELD_OUT * len(classes))]))
        train, test = whole.take(~held), whole.take(held)
    else:
        files = ("train", "test") if name == "forward" else ("test", "train")
        train, test = (read_store(folder, dataset, file) for file in files)
    centre = train.features.mean(0)
    centred = train.features - centre
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, scale, axes = torch.svd_lowrank(centred, COMPONENTS + 16, niter=2)
    spread = scale[:COMPONENTS].square() / len(centred)
    # whitened, but for what is small against the mean
    axes = axes[:, :COMPONENTS] * (spread + 0.1 * spread.mean()).rsqrt()
    labels = torch.unique(train.labels, return_inverse=True)[1]
    return (
        Store(centred @ axes, labels, train.groups),
        Store((test.features - centre) @ axes, test.labels, test.groups),
    )


def wrong_labels(train: Store, noise: str, seed: int) -> Tensor:
    """Labels of which a share is wrong: drawn from all other classes, or from the ten with the nearest means."""
    kind, share = noise.split("-")
    rng = generator(seed, 7)
    count = int(train.labels.max()) + 1
    wrong = torch.from_numpy(rng.random(len(train.labels)) < float(share) / 100)
    if kind == "symmetric":
        other = (train.labels + torch.from_numpy(rng.integers(1, count, len(wrong)))) % count
    else:
        means = normalize(class_means(train.features, train.labels, count))
        near = (means @ means.T).fill_diagonal_(-2).topk(10).indices
        other = near[train.labels, torch.from_numpy(rng.integers(0, 10, len(wrong)))]
    return torch.where(wrong, other, train.labels)


def class_means(x: Tensor, labels: Tensor, count: int) -> Tensor:
    """Mean of each class, (C, width)."""
    sums = x.new_zeros(count, x.shape[1]).index_add_(0, labels, x)
    return sums / torch.bincount(labels, minlength=count).clamp_min(1).unsqueeze(1)


class Constant(nn.Module):
    """The same uncertainty for every image."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """One value, (B, 1)."""
        return x.new_full((len(x), 1), self.norm)


class Heads(nn.Module):
    """Both heads, the loss and what the uncertainty is ranked by."""

    def __init__(self, trial: Trial, setting: Setting, num_classes: int, num_images: int) -> None:
        super().__init__()
        config = config_of(trial.arm, trial.loss, setting)
        self.config = config
        self.semantic = nn.Linear(COMPONENTS, DIM)
        # outputs of about unit norm: where a step of the rate turns an embedding as far as it can be said to
        nn.init.normal_(self.semantic.weight, std=(COMPONENTS * DIM) ** -0.5)
        nn.init.zeros_(self.semantic.bias)
        self.loss: MetricLoss = build_loss(
            trial.loss, num_classes, DIM, form=config.form, tau=config.tau, **setting.loss_kwargs
        )
        self.pull_only = trial.arm == "pull"
        self.uncertainty: nn.Module | None = None
        self.numbers: nn.Parameter | None = None
        if trial.arm == "constant":
            self.uncertainty = Constant(setting.doubt * config.tau)
        elif self.pull_only:
            self.numbers = nn.Parameter(torch.zeros(num_images))
        elif config.form != "none":
            self.uncertainty = UncertaintyHead(
                COMPONENTS,
                DIM,
                config.uncertainty_activation,
                config.uncertainty_level,
                hidden_features=HIDDEN_FEATURES if config.uncertainty_head == "stages" else None,
                start=None if config.uncertainty_start is None else config.uncertainty_start * config.tau,
            )
            self.uncertainty.reset_parameters()
        ranks = config.ranks_uncertainty and trial.arm == "introspective"
        self.ranking = UncertaintyRanking(REFERENCE) if ranks else None
        self.memory = ReferenceMemory(REFERENCE, DIM) if ranks else None

    def doubts(self, x: Tensor, images: Tensor) -> Tensor | None:
        """Uncertainty embeddings of a batch, (B, d_u)."""
        if self.numbers is not None:
            # under the budget, as that of a head: it can be moved between images, and not switched off
            value = softplus(self.numbers[images])
            return (value * (self.config.uncertainty_level / value.mean())).unsqueeze(1)
        if self.uncertainty is None:
            return None
        read = x.detach() if self.config.uncertainty_detached else x
        return self.uncertainty(normalised(read))

    def compare(self, semantic: Tensor, doubt: Tensor | None, labels: Tensor) -> Tensor:
        """The loss."""
        loss = self.loss
        if not self.pull_only:
            return loss(semantic, doubt, labels)
        # the metric between images of one class, the plain distance to all others
        if isinstance(loss, PairLoss):
            pairs = Pairs.of(labels, labels)
            pull, push = (loss.compare(semantic, u, semantic, u) for u in (doubt, None))
            return loss.matrix_loss(torch.where(pairs.positive, pull, push), pairs)
        loss = cast(ProxyLoss, loss)
        own = one_hot(labels, len(loss.proxies)).bool()
        pull, push = (loss.compare_with_proxies(semantic, u) for u in (doubt, None))
        return loss.matrix_loss(torch.where(own, pull, push), labels)

    def forward(self, x: Tensor, images: Tensor, labels: Tensor, groups: Tensor, mixed: dict[str, Tensor]) -> Tensor:
        """The loss of a batch, as `IDMLForMetricLearning` has it."""
        batch = len(x)
        if mixed:
            x, images = torch.cat((x, mixed["mixed_pixel_values"])), images.repeat(2)
        semantic = normalize(self.semantic(x))
        doubt = self.doubts(x, images)
        read = doubt.detach() if self.ranking is not None and doubt is not None else doubt
        first, second = slice(batch), slice(batch, None)
        loss = self.compare(semantic[first], None if read is None else read[first], labels)
        if mixed:
            others = semantic[second], None if read is None else read[second]
            ratio = mixed["mix_ratio"]
            loss = (
                loss
                + ratio * self.compare(*others, labels)
                + (1 - ratio) * self.compare(*others, mixed["mixed_classes"])
            )
        if self.ranking is not None and doubt is not None and self.memory is not None:
            norm = torch.linalg.vector_norm(doubt[first], dim=1)
            loss = loss + self.config.uncertainty_ranking * self.ranking(
                norm, semantic[first], labels, self.memory, groups
            )
        return loss


def config_of(arm: str, loss: str, setting: Setting) -> IDMLConfig:
    """The package's configuration of an arm."""
    doubt = setting.doubt
    methods: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("plain", {}),
        "drop": ("plain", {}),
        "weigh": ("plain", {}),
        # the norm stands in the place of the head
        "constant": ("published", {"uncertainty_activation": "l2"}),
        "unit_norm": ("published", {"uncertainty_activation": "l2", "tau": 1 / doubt if doubt else TAU}),
        "relu": ("published", {"uncertainty_activation": "relu", "uncertainty_start": doubt or None}),
        "released": ("released", {"tau": 1 / doubt if doubt else TAU}),
        "introspective": ("introspective", {"uncertainty_level": doubt * TAU or None}),
        "pull": ("introspective", {"uncertainty_level": doubt * TAU or None}),
    }
    method, fields = methods[arm]
    return IDMLConfig.from_method(method, loss=loss, embedding_dim=DIM, **fields)


def train(trial: Trial, setting: Setting, store: Store, labels: Tensor, seed: int) -> Heads:
    """Train the heads of a run."""
    torch.manual_seed(derive_seed(seed, 1))
    count = int(labels.max()) + 1
    heads = Heads(trial, setting, count, len(labels)).train()
    if trial.loss in PROXY_LOSSES:
        with torch.no_grad():
            means = normalize(class_means(normalize(heads.semantic(store.features)), labels, count))
            cast(ProxyLoss, heads.loss).proxies.copy_(means)
    proxies = [p for name, p in heads.loss.named_parameters() if name.startswith("proxies")]
    numbers = [] if heads.numbers is None else [heads.numbers]
    special = {id(p) for p in proxies + numbers}
    others = [p for p in heads.parameters() if id(p) not in special]
    rate = setting.learning_rate
    groups: list[dict[str, Any]] = [{"params": others, "lr": rate}, {"params": proxies, "lr": rate * PROXY_RATE}]
    groups += [{"params": numbers, "lr": rate * PROXY_RATE, "weight_decay": 0.0}] if numbers else []
    groups = [group for group in groups if group["params"]]
    rates: list[float] = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)
    batches = drawn(labels, trial.loss in PROXY_LOSSES, seed)
    steps = sum(map(len, batches))
    step = 0
    for epoch, epoch_batches in enumerate(batches):
        trust = trusted(trial, heads, store, labels, count, epoch, seed)
        for images in epoch_batches:
            if trust is not None:
                images = images[trust[images]]
            for group, top in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = top * slope(step / steps)
            x, given = store.features[images], labels[images]
            mixed = mix_batch(x, given, 1.0, seed, step) if trial.mixup else {}
            loss = heads(x, images, given, store.groups[images], mixed)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return heads.eval()


def slope(progress: float) -> float:
    """The learning rate over its largest: up, then a cosine down to 0."""
    if progress < WARMUP:
        return progress / WARMUP
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP))


_drawn: dict[tuple[bytes, bool, int], list[list[Tensor]]] = {}


def drawn(labels: Tensor, at_random: bool, seed: int) -> list[list[Tensor]]:
    """The images of each batch of each epoch, by the package's samplers; the last draw of each kind is kept."""
    key = (hashlib.sha256(labels.numpy().tobytes()).digest(), at_random, seed)
    if key not in _drawn:
        size = CLASSES * IMAGES
        sampler: RandomBatchSampler
        if at_random:
            sampler = RandomBatchSampler(len(labels), size, seed)
        else:
            sampler = PKBatchSampler(labels.numpy(), CLASSES, IMAGES, seed)
        epochs = []
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            epochs.append([torch.tensor([draw.index for draw in batch]) for batch in sampler])
        _drawn[key] = epochs
        while len(_drawn) > 16:
            del _drawn[next(iter(_drawn))]
    return _drawn[key]


@torch.no_grad()
def trusted(
    trial: Trial, heads: Heads, store: Store, labels: Tensor, count: int, epoch: int, seed: int
) -> Tensor | None:
    """Which images take part in an epoch, where an arm doubts their labels; from the second epoch on."""
    if trial.arm not in ("drop", "weigh") or not epoch:
        return None
    embeddings = normalize(heads.semantic(store.features))
    similarity = embeddings @ normalize(class_means(embeddings, labels, count)).T
    own = similarity.gather(1, labels.unsqueeze(1)).squeeze(1)
    if trial.arm == "drop":
        # PRISM: the least probable, as many as are wrong
        chance = own - torch.logsumexp(10 * similarity, 1) / 10
        return chance > chance.quantile(float(trial.noise.split("-")[1]) / 100)
    # ProcSim: each takes part with its confidence, the nearness to the own class's mean scaled to [0, 1]
    confidence = (own - own.min()) / (own.max() - own.min())
    draw = torch.from_numpy(generator(seed, 9, epoch).random(len(labels))).float()
    return draw < confidence


def run(trial: Trial, setting: Setting, folder: Path) -> dict[str, Any]:
    """Make one run: what its line of the results says."""
    start = time.perf_counter()
    train_store, test = fold(folder, trial.dataset, trial.fold)
    seed = trial.number
    if trial.fold == "held-out":
        # the number is that of a setting
        seed = 0
    else:
        # two seeds in a row share out the test classes between them
        halves = torch.from_numpy(generator(seed // 2, 3).permutation(int(test.labels.max()) + 1) % 2)
        test = test.take(halves[test.labels] == seed % 2)
    labels = train_store.labels if trial.noise == "none" else wrong_labels(train_store, trial.noise, seed)
    heads = train(trial, setting, train_store, labels, seed)
    with torch.no_grad():
        embeddings = normalize(heads.semantic(test.features))
        result = retrieval(embeddings, test)
        known = normalize(heads.semantic(train_store.features))
        if trial.stage == "compare" and trial.arm in REMEMBERING and not trial.mixup:
            memory = ReferenceMemory(len(known), DIM)
            memory.remember(known)
            centred = normalize(embeddings - REFERENCE_WEIGHT * memory(embeddings)[0])
            result |= {f"with_reference_{name}": value for name, value in retrieval(centred, test).items()}
        doubt = heads.doubts(train_store.features, torch.arange(len(labels)))
        norm = None if doubt is None else torch.linalg.vector_norm(doubt, dim=1)
        if norm is not None:
            result["final_doubt"] = float(norm.mean()) / heads.config.tau
        if trial.noise != "none":
            result |= found(known, labels, labels != train_store.labels, norm)
    return {"setting": vars(setting)} | result | {"seconds": time.perf_counter() - start}


def retrieval(embeddings: Tensor, test: Store) -> dict[str, float]:
    """MAP@R and R@1."""
    measured = retrieval_metrics(embeddings, test.labels, ks=(1,), groups=test.groups)
    return {name: measured[name] for name in ("map_at_r", "recall_at_1")}


def found(embeddings: Tensor, labels: Tensor, wrong: Tensor, doubt: Tensor | None) -> dict[str, float]:
    """AUROC with which the wrong labels are found: by the uncertainty, by the neighbours, by the own class's mean."""
    near = (embeddings @ embeddings.T).fill_diagonal_(-2).topk(10).indices
    scores = {"auroc_neighbours": -(labels[near] == labels.unsqueeze(1)).float().mean(1)}
    means = normalize(class_means(embeddings, labels, int(labels.max()) + 1))
    scores["auroc_own_mean"] = -(embeddings * means[labels]).sum(1)
    if doubt is not None and float(doubt.std()) > 1e-6:
        scores["auroc_uncertainty"] = doubt
    return {name: auroc(score.numpy(), wrong.numpy()) for name, score in scores.items()}


class Results:
    """The lines of a file, by the runs they are of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.by_key: dict[str, dict[str, Any]] = {}
        for line in lines:
            row = json.loads(line)
            self.by_key[trial_of(row).key] = row

    def get(self, trial: Trial, setting: Callable[[], Setting], folder: Path) -> dict[str, Any]:
        """The result of a run, which is made if it is not there."""
        if trial.key not in self.by_key:
            self.add(trial, run(trial, setting(), folder))
        return self.by_key[trial.key]

    def add(self, trial: Trial, measured: dict[str, Any]) -> None:
        """Write a line."""
        row = vars(trial) | {k: round(v, 5) if isinstance(v, float) else v for k, v in measured.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.by_key[trial.key] = row

    def of(self, stage: str) -> list[dict[str, Any]]:
        """The lines of a stage."""
        return [row for row in self.by_key.values() if row["stage"] == stage]


def trial_of(row: dict[str, Any]) -> Trial:
    """The run that a line is of."""
    return Trial(**{name: row[name] for name in Trial.__dataclass_fields__})


def dimensions(loss: str, arm: str) -> dict[str, tuple[float, float, bool]]:
    """What is tuned."""
    return {"learning_rate": RATE, **SPACE[loss], **({} if arm == "plain" else {"doubt": DOUBT})}


def to_setting(loss: str, arm: str, place: np.ndarray) -> Setting:
    """The setting at a place of the unit cube."""
    values: dict[str, Any] = {}
    for (name, (low, high, logarithmic)), x in zip(dimensions(loss, arm).items(), place.clip(0, 1), strict=True):
        value = float(low * (high / low) ** x if logarithmic else low + x * (high - low))
        values[name] = round(value) if isinstance(low, int) else float(f"{value:.4g}")
    rate, doubt = values.pop("learning_rate"), values.pop("doubt", 0.0)
    return Setting(rate, values, doubt)


def published_setting(loss: str, arm: str) -> Setting:
    """The paper's settings of a loss."""
    own = {name: LOSSES[loss].hyper_parameters()[name] for name in SPACE[loss]}
    return Setting(START["learning_rate"], own, 0.0 if arm == "plain" else START["doubt"])


def scores(results: Results, loss: str, arm: str, stage: str = "tune") -> dict[int, float]:
    """Mean MAP@R of both sets for each trial that was made on both."""
    found: dict[int, list[float]] = {}
    for row in results.of(stage):
        if (row["loss"], row["arm"]) == (loss, arm):
            found.setdefault(row["number"], []).append(row["map_at_r"])
    return {number: float(np.mean(values)) for number, values in found.items() if len(values) == len(SETS)}


def tuning(dataset: str, loss: str, arm: str, number: int, stage: str = "tune") -> Trial:
    """A trial of the search."""
    return Trial(stage, dataset, "held-out", loss, arm, False, "none", number)


def tuned(results: Results, loss: str, arm: str, trials: int | None = None) -> tuple[int, Setting]:
    """The best trial of an arm so far, or of its first so many, and its setting."""
    made = scores(results, loss, arm)
    best = max((n for n in made if trials is None or n < trials), key=lambda number: made[number])
    return best, Setting(**results.by_key[tuning(SETS[0], loss, arm, best).key]["setting"])


def choose(results: Results) -> None:
    """Write down the best settings, once: what is compared afterwards is fixed before."""
    for loss, arm in itertools.product(LOSSES, ARMS):
        made = scores(results, loss, arm)
        if made and not any((row["loss"], row["arm"]) == (loss, arm) for row in results.of("choice")):
            best, setting = tuned(results, loss, arm)
            trial = Trial("choice", "both", "held-out", loss, arm, False, "none", best)
            measured = {"map_at_r": made[best], "published_map_at_r": made[0]}
            results.add(trial, {"setting": vars(setting), "trials": len(made)} | measured)


def write_recipes(results: Results, folder: Path) -> list[Path]:
    """The best settings of the package's own methods, where they beat the paper's on both sets, as recipes."""
    written = []
    for loss, arm in itertools.product(LOSSES, REMEMBERING):
        made: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
        for row in (*results.of("tune"), *results.of("miner")):
            if (row["loss"], row["arm"]) == (loss, arm):
                made.setdefault((row["stage"], row["number"]), {})[row["dataset"]] = row
        measured = {key: [rows[name]["map_at_r"] for name in SETS] for key, rows in made.items() if len(rows) == 2}
        if not measured:
            continue
        key = max(measured, key=lambda key: sum(measured[key]))
        paper, best = measured["tune", 0], measured[key]
        if not all(ours > theirs for ours, theirs in zip(best, paper, strict=True)):
            continue
        setting = Setting(**made[key][SETS[0]]["setting"])
        recipe: dict[str, Any] = {"method": arm, "loss": loss, "loss_kwargs": setting.loss_kwargs}
        if arm == "introspective":
            recipe["uncertainty_level"] = float(f"{setting.doubt * TAU:.3g}")
        gains = ", ".join(
            f"{name} {100 * old:.1f} -> {100 * new:.1f}" for name, old, new in zip(SETS, paper, best, strict=True)
        )
        path = folder / arm / f"{loss}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"# best of {len(measured)} trials (benchmarks/trial.py); MAP@R on held-out training classes: {gains}\n"
        path.write_text(text + yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        written.append(path)
    return written


def chosen(results: Results, loss: str, arm: str) -> Setting:
    """The setting that was written down for an arm, or for the one that it is built on."""
    arm = BUILT_ON.get(arm, arm)
    for row in results.of("choice"):
        if (row["loss"], row["arm"]) == (loss, arm):
            return Setting(**row["setting"])
    raise SystemExit(f"{results.path} has no choice for {loss} {arm}: tune and choose first")


def searched(results: Results, loss: str, arm: str, number: int) -> Setting:
    """The setting of a trial: the paper's, then a Sobol sequence, then near the best so far."""
    if not number:
        return published_setting(loss, arm)
    names = dimensions(loss, arm)
    seed = derive_seed(list(LOSSES).index(loss), ARMS.index(arm)) % 2**31
    if number < EXPLORED:
        engine = torch.quasirandom.SobolEngine(len(names), scramble=True, seed=seed)
        return to_setting(loss, arm, engine.draw(EXPLORED)[number].double().numpy())
    best = tuned(results, loss, arm)[1]
    flat = {"learning_rate": best.learning_rate, "doubt": best.doubt} | best.loss_kwargs
    place = []
    for name, (low, high, logarithmic) in names.items():
        x = flat[name]
        place.append(np.log(x / low) / np.log(high / low) if logarithmic else (x - low) / (high - low))
    return to_setting(loss, arm, np.array(place) + 0.12 * generator(seed, number).standard_normal(len(names)))


def tune(results: Results, folder: Path, losses: list[str], trials: int) -> Iterator[None]:
    """Search the settings of each loss and arm, round by round, so that all have equally many at any time.

    At the end each arm tries the best settings of the others: no arm is behind for want of luck in its draws alone.
    """
    pairs = [(loss, arm) for loss in losses for arm in arms_of(loss, ARMS)]
    for number, (loss, arm) in itertools.product(range(trials), pairs):
        search = functools.cache(functools.partial(searched, results, loss, arm, number))
        for dataset in SETS:
            results.get(tuning(dataset, loss, arm, number), search, folder)
            yield
    for (loss, arm), (place, donor) in itertools.product(pairs, enumerate(ARMS)):
        if donor != arm and donor in arms_of(loss, ARMS):
            best, own = (tuned(results, loss, which, trials)[1] for which in (donor, arm))
            doubt = 0.0 if arm == "plain" else best.doubt or own.doubt
            setting = functools.partial(Setting, best.learning_rate, best.loss_kwargs, doubt)
            for dataset in SETS:
                results.get(tuning(dataset, loss, arm, trials + place), setting, folder)
                yield


def arms_of(loss: str, arms: tuple[str, ...]) -> tuple[str, ...]:
    """Those that a loss has.

    As published, the uncertainty has unit norm between images and a ReLU against proxies: these have no uncertainty,
    so that unit norm would be a constant doubt.
    """
    lacking = {"unit_norm" if loss in PROXY_LOSSES else "relu"}
    if loss != "proxy_anchor":
        lacking.add("released")
    return tuple(arm for arm in arms if arm not in lacking)


def compare(results: Results, folder: Path, losses: list[str], seeds: int) -> Iterator[None]:
    """The tuned arms with and without Mixup, on the test classes of both files."""
    ways = ("forward", "backward")
    controls = ("constant", "released")
    parts = (tuple(arm for arm in ARMS if (arm in controls) == control) for control in (False, True))
    order = itertools.product(range(seeds), (False, True), parts, ways, SETS, losses)
    for seed, mixup, arms, way, dataset, loss in order:
        for arm in arms_of(loss, arms):
            trial = Trial("compare", dataset, way, loss, arm, mixup, "none", seed)
            results.get(trial, functools.partial(chosen, results, loss, arm), folder)
            yield


def miner(results: Results, folder: Path, losses: list[str], trials: int) -> Iterator[None]:
    """Multi-Similarity with its miner open: a few settings, and the best of each arm on the test classes."""
    loss = "multi_similarity"
    arms = arms_of(loss, ARMS) if loss in losses else ()
    for number, arm, dataset in itertools.product(range(trials), arms, SETS):
        best = chosen(results, loss, arm)
        soft = {"alpha": 1.4, "beta": 10.0, "base": 0.5}
        setting = (
            Setting(best.learning_rate, best.loss_kwargs | OPEN, best.doubt),
            Setting(2e-3, soft | OPEN, best.doubt),
            Setting(2e-3, soft | OPEN, best.doubt / 4),
        )[number]
        trial = tuning(dataset, loss, arm, number, "miner")
        results.get(trial, functools.partial(replace, setting), folder)
        yield
    for arm, way, dataset in itertools.product(arms, ("forward", "backward"), SETS):
        made = scores(results, loss, arm, "miner")
        key = tuning(SETS[0], loss, arm, max(made, key=lambda number: made[number]), "miner").key
        setting = Setting(**results.by_key[key]["setting"])
        results.get(
            Trial("open", dataset, way, loss, arm, False, "none", 0), functools.partial(replace, setting), folder
        )
        yield


def noise(results: Results, folder: Path, losses: list[str], seeds: int) -> Iterator[None]:
    """Wrong labels in training."""
    for seed, kind, loss, dataset in itertools.product(range(seeds), NOISES, losses, SETS):
        for arm in arms_of(loss, NOISE_ARMS) if loss in NOISE_LOSSES else ():
            trial = Trial("noise", dataset, "forward", loss, arm, False, kind, seed)
            results.get(trial, functools.partial(chosen, results, loss, arm), folder)
            yield


def main() -> None:
    """Run a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    stages = {"tune": tune, "compare": compare, "noise": noise, "miner": miner}
    further = {"choose": choose, "recipes": write_recipes}
    for name, stage in {**stages, **further}.items():
        command = commands.add_parser(name, help=(stage.__doc__ or "").splitlines()[0])
        command.add_argument("--results", type=Path, default=Path("results/trial.jsonl"), help="file of results")
        if name == "recipes":
            command.add_argument("folder", type=Path, help="where to, for example idml_hf/recipes/tuned")
        if name in stages:
            command.add_argument("features", type=Path, help="folder of the features")
            command.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
            number, what = {"tune": (TRIALS, "trials of each search"), "miner": (3, "settings")}.get(
                name, (5, "seeds")
            )
            command.add_argument("--number", type=int, default=number, help=f"{what} ({number})")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results = Results(args.results)
    if args.command == "choose":
        choose(results)
    elif args.command == "recipes":
        print(*write_recipes(results, args.folder), sep="\n")
    else:
        for _ in tqdm(stages[args.command](results, args.features, args.losses, args.number), desc=args.command):
            pass


if __name__ == "__main__":
    main()
