from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from idml_hf.evaluation import retrieval_metrics
from idml_hf.losses import LOSSES

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


trial, report, pair_score = load("trial"), load("trial_report"), load("pair_score")


@pytest.fixture(autouse=True)
def subnormal_numbers() -> Iterator[None]:
    """The benchmark takes tiny numbers for 0, for speed, as long as its process lives."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of 40 classes of 8 images a file, from 4 makers, with a class's own direction in them."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    for name in trial.SETS:
        for split in ("train", "test"):
            labels = np.repeat(np.arange(40), 8)
            features = rng.normal(size=(40, 300))[labels] + rng.normal(size=(320, 300))
            groups = np.tile(np.arange(4), 80)
            np.savez(
                folder / f"{name}-{split}.npz", features=features.astype(np.float16), labels=labels, groups=groups
            )
    return folder


def call(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["trial", *map(str, words)])
    module.main()


def test_a_trial_is_tuned_compared_and_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "trial.jsonl"
    monkeypatch.setattr(trial, "ARMS", arms := ("plain", "introspective"))
    monkeypatch.setattr(trial, "NOISE_ARMS", noise_arms := ("plain", "drop", "weigh", "pull"))
    monkeypatch.setattr(trial, "NOISES", ("symmetric-40",))
    common = ("--results", results, "--losses", "proxy_anchor")
    call(monkeypatch, trial, "tune", folder, *common, "--number", 2)
    call(monkeypatch, trial, "choose", "--results", results)
    call(monkeypatch, trial, "compare", folder, *common, "--number", 1)
    call(monkeypatch, trial, "noise", folder, *common, "--number", 1)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    count = {stage: sum(row["stage"] == stage for row in rows) for stage in ("tune", "choice", "compare", "noise")}
    # trials, Mixup, directions and sets are two each, and each arm tries the other's best settings on both sets
    assert count == {
        "tune": 4 * len(arms) + 4,
        "choice": len(arms),
        "compare": 8 * len(arms),
        "noise": 2 * len(noise_arms),
    }
    assert all(0.5 < row["map_at_r"] <= 1 for row in rows if row["stage"] == "compare")
    assert all(row["auroc_neighbours"] > 0.5 for row in rows if row["stage"] == "noise")
    # what is there is not made again
    before = results.read_text()
    call(monkeypatch, trial, "compare", folder, *common, "--number", 1)
    call(monkeypatch, trial, "choose", "--results", results)
    assert results.read_text() == before
    capsys.readouterr()
    monkeypatch.setattr(report, "LOSSES", ("proxy_anchor",))
    call(monkeypatch, report, results, "--figure", tmp_path / "trial.png")
    assert "| metric | introspective |" in capsys.readouterr().out
    assert (tmp_path / "trial.png").stat().st_size > 10_000
    pairs = tmp_path / "pairs.jsonl"
    call(
        monkeypatch,
        pair_score,
        folder,
        "--trial",
        results,
        "--results",
        pairs,
        "--losses",
        "proxy_anchor",
        "--seeds",
        1,
    )
    (first, second) = map(json.loads, pairs.read_text().splitlines())
    assert all(0.5 < row["pair_auroc_both"] <= 1 and row["pair_ece_both"] < 0.2 for row in (first, second))


@pytest.mark.parametrize("loss", LOSSES)
def test_without_doubt_the_pull_only_discount_is_the_plain_loss(loss: str) -> None:
    setting = trial.published_setting(loss, "plain")
    x, labels = torch.nn.functional.normalize(torch.randn(12, trial.DIM), dim=1), torch.arange(12) // 3
    values = []
    for arm in ("plain", "pull"):
        torch.manual_seed(0)
        run = trial.Trial("noise", "emoji", "forward", loss, arm, False, "none", 0)
        heads = trial.Heads(run, trial.Setting(1e-3, setting.loss_kwargs, 0.2), 4, 12)
        torch.manual_seed(0)
        values.append(heads.compare(x, torch.zeros(12, 1) if arm == "pull" else None, labels).item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_constant_doubt_is_the_same_for_all_and_learns_nothing() -> None:
    run = trial.Trial("compare", "emoji", "forward", "contrastive", "constant", False, "none", 0)
    heads = trial.Heads(run, trial.Setting(1e-3, {}, 0.2), 4, 12)
    doubts = heads.doubts(torch.randn(5, trial.COMPONENTS), torch.arange(5))
    assert doubts.tolist() == [[pytest.approx(0.2 * heads.config.tau)]] * 5
    assert {name.split(".")[0] for name, _ in heads.named_parameters()} == {"semantic"}


def test_wrong_labels_are_as_many_as_asked_and_never_right() -> None:
    labels = torch.arange(40).repeat_interleave(50)
    store = trial.Store(torch.randn(2000, 8), labels, labels)
    for noise, share in (("symmetric-20", 0.2), ("symmetric-40", 0.4), ("similar-20", 0.2)):
        assert float((trial.wrong_labels(store, noise, 0) != labels).float().mean()) == pytest.approx(share, abs=0.03)


def test_tuned_settings_stay_in_their_ranges() -> None:
    for loss, arm in (("fast_ap", "plain"), ("contrastive", "constant")):
        for corner in (-0.3, 0.0, 1.0, 1.4):
            place = np.full(len(trial.dimensions(loss, arm)), corner)
            setting = trial.to_setting(loss, arm, place)
            for name, (low, high, _) in trial.SPACE[loss].items():
                assert low <= setting.loss_kwargs[name] <= high
            assert (setting.doubt == 0) == (arm == "plain")


def test_features_are_read_from_what_the_command_stores(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "emoji-train.npz") as stored:
        features, labels, groups = (stored[name] for name in ("features", "labels", "groups"))
    store = tmp_path / "emoji"
    store.mkdir()
    plan = {"images": len(labels), "class_names": list(map(str, range(40)))}
    known = {"format": 1, "shard_size": 1000, "degraded_share": 0, "group_column": "maker", "splits": {"train": plan}}
    (store / "features.json").write_text(json.dumps(known))
    np.save(store / "train-00000-of-00001.npy", features)
    columns = {"image": list(map(str, range(len(labels)))), "label": labels, "group": groups}
    pq.write_table(pa.table(columns), store / "train.parquet")
    for ours, theirs in zip(*(trial.read_store(f, "emoji", "train") for f in (tmp_path, folder)), strict=True):
        assert torch.equal(ours, theirs)


def test_a_pair_score_that_is_the_cosine_ranks_as_the_cosine_does() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    store = trial.Store(embeddings, torch.arange(200) // 5, torch.arange(200) % 3)
    ours = pair_score.map_at_r(embeddings, torch.zeros(200, 2), store, (), np.array([3.0, 1.0]))
    peer = retrieval_metrics(embeddings, store.labels, groups=store.groups)["map_at_r"]
    assert ours == pytest.approx(peer, abs=1e-6)
