"""Does the uncertainty of a pair add to its cosine? A pair score of few parameters on frozen features.

    python benchmarks/pair_score.py FEATURES --results results/pair_score.jsonl

Heads are trained as in `benchmarks/trial.py` (arm `introspective`, its chosen settings). On the training classes held
out of a set a logistic regression learns whether two images are of one class, from

    cos, U = log u_i + log u_j, D = log d_i + log d_j, cos U and cos D

u being the uncertainty of an image and d the density of training images around it, both standardised; and one that
has the cosine alone. A second model, trained on the whole training file, is judged with them on the test classes. What
ranks all images (MAP@R) learns from the 20 nearest of each image; what judges pairs drawn at random (AUROC, ECE) from
such.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm
from trial import DIM, SETS, Results, Store, Trial, chosen, fold, train

from idml_hf.evaluation.classification import calibration_error
from idml_hf.evaluation.pairs import draw_pairs
from idml_hf.evaluation.uncertainty import auroc
from idml_hf.losses import LOSSES
from idml_hf.reference_memory import ReferenceMemory

PAIRS = 20_000
NEAR = 20
SIGNALS: dict[str, tuple[int, ...]] = {"cosine": (), "uncertainty": (0,), "density": (1,), "both": (0, 1)}


def describe(heads: Any, train_store: Store, store: Store) -> tuple[Tensor, Tensor]:
    """Unit embeddings (N, d), and log u and log density of each image (N, 2)."""
    with torch.no_grad():
        known = normalize(heads.semantic(train_store.features))
        memory = ReferenceMemory(len(known), DIM)
        memory.remember(known)
        embeddings = normalize(heads.semantic(store.features))
        doubt = heads.doubts(store.features, torch.arange(len(store.labels))).norm(dim=1)
        return embeddings, torch.stack((doubt.log(), memory(embeddings)[1].log()), 1)


def terms(cosine: Tensor, left: Tensor, right: Tensor, signals: tuple[int, ...]) -> list[Tensor]:
    """What the score is linear in; the columns of `left` and `right` are the signals, of any shape that broadcasts."""
    sums = [left[..., k] + right[..., k] for k in signals]
    return [cosine, *(x for total in sums for x in (total.expand_as(cosine), cosine * total))]


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def fit(embeddings: Tensor, known: Tensor, pairs: Pairs, signals: tuple[int, ...]) -> np.ndarray:
    """Weights of the terms, then the constant."""
    columns = columns_of(embeddings, known, pairs, signals)
    model = LogisticRegression(C=1e4, max_iter=1000).fit(columns, pairs[2])
    return np.append(model.coef_[0], model.intercept_)


def columns_of(embeddings: Tensor, known: Tensor, pairs: Pairs, signals: tuple[int, ...]) -> np.ndarray:
    """The terms of pairs, (P, terms)."""
    left, right, _ = pairs
    cosine = (embeddings[left] * embeddings[right]).sum(1)
    return torch.stack(terms(cosine, known[left], known[right], signals), 1).numpy()


def random_pairs(store: Store, seed: int) -> Pairs:
    """Half of one class and two groups, half of two classes."""
    rng = np.random.default_rng(seed)
    return draw_pairs(store.labels.numpy(), store.groups.numpy(), PAIRS, rng)


def near_pairs(embeddings: Tensor, store: Store) -> Pairs:
    """Each image and the 20 nearest that are a match, or of another class."""
    same = store.labels.unsqueeze(1) == store.labels
    ignored = same & (store.groups.unsqueeze(1) == store.groups)
    right = (embeddings @ embeddings.T).masked_fill(ignored, -2).topk(NEAR).indices.flatten()
    left = torch.arange(len(embeddings)).repeat_interleave(NEAR)
    return left.numpy(), right.numpy(), (store.labels[left] == store.labels[right]).numpy()


def map_at_r(embeddings: Tensor, known: Tensor, store: Store, signals: tuple[int, ...], weights: np.ndarray) -> float:
    """MAP@R where the score ranks; matches of the query's own group do not count, as everywhere."""
    found = []
    for block in torch.arange(len(embeddings)).split(1024):
        cosine = embeddings[block] @ embeddings.T
        score = sum(
            float(w) * x
            for w, x in zip(weights, terms(cosine, known[block, None], known[None], signals), strict=False)
        )
        assert isinstance(score, Tensor)
        same = store.labels[block, None] == store.labels
        ignored = same & (store.groups[block, None] == store.groups)
        right = same & ~ignored
        total = right.sum(1)
        ranked = right.gather(1, score.masked_fill(ignored, -torch.inf).topk(int(total.max())).indices)
        place = torch.arange(1, ranked.shape[1] + 1)
        hits = ranked & (place <= total.unsqueeze(1))
        precision = hits.cumsum(1) / place
        found.append(((precision * hits).sum(1) / total)[total > 0])
    return float(torch.cat(found).mean())


def run(results: Results, folder: Path, dataset: str, loss: str, seed: int) -> dict[str, float]:
    """MAP@R, pair AUROC and ECE of each score on test classes, fitted on held-out training classes."""
    setting = chosen(results, loss, "introspective")
    described = {}
    for way in ("held-out", "forward"):
        trial = Trial("compare", dataset, way, loss, "introspective", False, "none", seed)
        train_store, store = fold(folder, dataset, way)
        heads = train(trial, setting, train_store, train_store.labels, seed)
        embeddings, known = describe(heads, train_store, store)
        # in units of their spread on the images themselves, which needs no labels
        described[way] = embeddings, (known - known.mean(0)) / known.std(0), store
    held_out, held_known, held_store = described["held-out"]
    embeddings, known, store = described["forward"]
    learnt = random_pairs(held_store, seed), near_pairs(held_out, held_store)
    judged = random_pairs(store, seed + 1)
    measured: dict[str, float] = {}
    for name, signals in SIGNALS.items():
        for_pairs, for_ranking = (fit(held_out, held_known, pairs, signals) for pairs in learnt)
        logit = columns_of(embeddings, known, judged, signals) @ for_pairs[:-1] + for_pairs[-1]
        probability = 1 / (1 + np.exp(-logit))
        right = (probability > 0.5) == judged[2]
        measured |= {
            f"map_at_r_{name}": map_at_r(embeddings, known, store, signals, for_ranking),
            f"pair_auroc_{name}": auroc(logit, judged[2]),
            f"pair_ece_{name}": calibration_error(np.maximum(probability, 1 - probability), right),
        }
    return measured


def main() -> None:
    """Make the runs that are missing, and print the means over losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="folder of the features")
    parser.add_argument("--trial", type=Path, default=Path("results/trial.jsonl"), help="where the settings are")
    parser.add_argument("--results", type=Path, default=Path("results/pair_score.jsonl"), help="file of results")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["dataset"], row["loss"], row["seed"]) for row in rows}
    choices = Results(args.trial)
    for key in tqdm(list(itertools.product(SETS, args.losses, range(args.seeds)))):
        if key not in done:
            row = dict(zip(("dataset", "loss", "seed"), key, strict=True)) | run(choices, args.features, *key)
            row = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
            with args.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
    print("| set | score | MAP@R | pair AUROC | pair ECE |\n| --- | --- | ---: | ---: | ---: |")
    for dataset, name in itertools.product(SETS, SIGNALS):
        mine = [row for row in rows if row["dataset"] == dataset]
        means = [np.mean([row[f"{key}_{name}"] for row in mine]) for key in ("map_at_r", "pair_auroc", "pair_ece")]
        print(f"| {dataset} | {name} | {100 * means[0]:.2f} | {means[1]:.4f} | {means[2]:.4f} |")


if __name__ == "__main__":
    main()
