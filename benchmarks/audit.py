"""Find planted faults in real collections, beside what others find in the same features.

    python benchmarks/audit.py labels --dataset DIR --split test --backbone NAME --weights FILE [--seeds 3]
    python benchmarks/audit.py copies --dataset DIR --split test --backbone NAME --weights FILE
    python benchmarks/audit.py scale [--images 60000] [--classes 11000]
    python benchmarks/audit.py training --dataset DIR --backbone NAME --weights FILE [--seeds 3]

- labels: labels are made wrong at random (5, 10, 30 %), or within the superclass that a column of the data names
  (10 %); AUROC of wrong against right labels, precision at the true number of them, and what was promised. Beside the
  audit: cleanlab's label quality (self-confidence and normalised margin, of out-of-fold probabilities of
  scikit-learn's shrunk discriminant analysis), its `find_label_issues` and its Datalab; the share of the 10 nearest
  pictures with the same label; and the cosine with the mean of the class's other pictures.
- copies: 2 % of the pictures are added again, each cropped, recompressed, resized, or as they are.
- scale: seconds and memory of cross-fitting, of made features; each size in a process of its own.
- training: the closed-form head on frozen features of training classes, 10 % of whose labels are wrong, with and
  without what the audit would leave out; R@1 and MAP@R of the test classes.

Peers: `pip install "cleanlab[datalab]"`. Features can be kept with `--cache FILE.npz`.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import scipy.stats
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from idml_hf.audit import cross_fit, expected_precision
from idml_hf.audit.collection import describing_model
from idml_hf.audit.copies import find_copies
from idml_hf.audit.cross_fitting import principal_components
from idml_hf.audit.pictures import look_at
from idml_hf.data import ImageSet, load_images
from idml_hf.evaluation import retrieval_metrics
from idml_hf.search import nearest
from idml_hf.training.closed_form import discriminant_head
from idml_hf.training.frozen_trunk import read_features

LEVELS = (0.95, 0.9, 0.8, 0.7)


def read(args: argparse.Namespace, split: str) -> tuple[np.ndarray, np.ndarray, ImageSet]:
    """Features, labels from 0 on, and pictures."""
    images = load_images(args.dataset, split, group_column=args.group_column)
    file = None if args.cache is None else Path(f"{args.cache}-{split}.npz")
    if file is not None and file.exists():
        features = np.load(file)["features"]
    else:
        described_by = describing_model(None, args.backbone, args.weights, args.image_size)
        features = read_features(*described_by, images).features
        if file is not None:
            np.savez(file, features=features)
    return features, np.unique(images.labels, return_inverse=True)[1], images


def spoiled(labels: np.ndarray, share: float, seed: int, superclass: np.ndarray | None = None) -> np.ndarray:
    """Labels, a share of them replaced by others: of all classes, or of those of the same superclass."""
    rng = np.random.default_rng([seed, round(1000 * share)])
    out, number = labels.copy(), labels.max() + 1
    if superclass is None:
        chosen = rng.permutation(len(labels))[: round(share * len(labels))]
        out[chosen] = (labels[chosen] + rng.integers(1, number, size=len(chosen))) % number
        return out
    sizes = np.bincount(superclass)
    able = np.flatnonzero(sizes[superclass[labels]] > 1)
    for at in rng.permutation(able)[: round(share * len(labels))]:
        others = np.flatnonzero(superclass == superclass[labels[at]])
        out[at] = rng.choice(others[others != labels[at]])
    return out


def peers(features: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Scores of each peer, high for right labels."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    rows = principal_components(features, np.random.default_rng(seed))
    present, codes = np.unique(labels, return_inverse=True)
    probabilities = np.full((len(labels), len(present)), 1e-9)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    for training, held_out in folds.split(rows, codes):
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.25).fit(rows[training], codes[training])
        probabilities[np.ix_(held_out, fitted.classes_)] = np.maximum(fitted.predict_proba(rows[held_out]), 1e-9)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    out = {
        f"cleanlab, {method.replace('_', ' ')}": get_label_quality_scores(codes, probabilities, method=method)
        for method in ("self_confidence", "normalized_margin")
    }
    out["issues of cleanlab"] = ~find_label_issues(codes, probabilities, n_jobs=1)
    out["cleanlab, Datalab"] = datalab(codes, probabilities)
    positions = nearest(features.astype(np.float32), features.astype(np.float32), 11)[1]
    same = labels[positions] == labels[:, None]
    same[positions == np.arange(len(labels))[:, None]] = False
    out["label agreement of the 10 nearest"] = same.sum(axis=1)
    sums = np.zeros((len(present), features.shape[1]))
    np.add.at(sums, codes, features.astype(np.float64))
    others = sums[codes] - features
    norms = np.linalg.norm(others, axis=1) * np.linalg.norm(features.astype(np.float64), axis=1)
    out["cosine with the class mean"] = (others * features).sum(axis=1) / np.maximum(norms, 1e-9)
    return out


def datalab(codes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    from cleanlab import Datalab

    lab = Datalab({"label": codes.astype(str)}, label_name="label", verbosity=0)
    # its own numbering of the classes is that of their names in alphabetical order
    order = np.argsort([str(code) for code in range(probabilities.shape[1])])
    lab.find_issues(pred_probs=probabilities[:, order], issue_types={"label": {}})
    return lab.get_issues("label")["label_score"].to_numpy()


def precision_at(wrong: np.ndarray, doubt: np.ndarray, number: int) -> float:
    return float(wrong[np.argsort(-doubt, kind="stable")[:number]].mean())


def one_trial(
    features: np.ndarray, truth: np.ndarray, given: np.ndarray, seed: int, with_peers: bool
) -> dict[str, Any]:
    wrong = given != truth
    started = time.process_time()
    scores = cross_fit(features, given, seed=seed)
    expected = expected_precision(scores)
    seconds = time.process_time() - started
    odds = np.nan_to_num(scores.log_odds, nan=np.nanmedian(scores.log_odds))
    out: dict[str, Any] = {
        "auroc": {"audit": roc_auc_score(wrong, odds)},
        "precision": {"audit": precision_at(wrong, odds, int(wrong.sum()))},
        "suggestion_right": float((scores.suggested == truth)[wrong].mean()),
        "estimated": expected.wrong,
        "true": float(wrong.mean()),
        "promised": {},
        "cpu_seconds": seconds,
    }
    for level in LEVELS:
        listed = np.nan_to_num(expected.above, nan=0) >= level
        if listed.any():
            kept = [float(expected.above[listed].min()), float(wrong[listed].mean()), int(listed.sum())]
            out["promised"][str(level)] = kept
    for name, quality in peers(features, given, seed).items() if with_peers else ():
        if name.startswith("issues"):
            found = ~quality
            out[name] = {"precision": float(wrong[found].mean()), "recall": float(found[wrong].mean())}
        else:
            out["auroc"][name] = roc_auc_score(wrong, -quality)
            out["precision"][name] = precision_at(wrong, -quality, int(wrong.sum()))
    return out


def labels(args: argparse.Namespace) -> Any:
    features, truth, images = read(args, args.split)
    conditions: list[tuple[str, float, np.ndarray | None]] = [("symmetric", share, None) for share in (0.05, 0.1, 0.3)]
    if images.extra is not None and args.superclass in images.extra.column_names:
        of_image = np.unique(images.extra[args.superclass], return_inverse=True)[1]
        superclass = np.zeros(truth.max() + 1, dtype=np.int64)
        superclass[truth] = of_image
        conditions.append(("semantic", 0.1, superclass))
    out = []
    for kind, share, superclass in conditions:
        trials = [
            one_trial(features, truth, spoiled(truth, share, seed, superclass), seed, not args.no_peers)
            for seed in range(args.seeds)
        ]
        out.append({"kind": kind, "share": share, "trials": trials})
        print(f"\n{kind} {share:.0%}, {args.seeds} seeds")
        for name in trials[0]["auroc"]:
            aurocs = [trial["auroc"][name] for trial in trials]
            precision = np.mean([trial["precision"][name] for trial in trials])
            print(f"  {name:36} AUROC {np.mean(aurocs):.4f} +- {np.std(aurocs):.4f}, precision {precision:.3f}")
        for name in [name for name in trials[0] if name.startswith("issues")]:
            found = [np.mean([trial[name][key] for trial in trials]) for key in ("precision", "recall")]
            print(f"  {name:36} precision {found[0]:.3f}, recall {found[1]:.3f}")
        estimated = np.mean([trial["estimated"] for trial in trials])
        right = np.mean([trial["suggestion_right"] for trial in trials])
        print(f"  estimated share of wrong labels {estimated:.3f}; right suggestions {right:.3f}")
        for level in LEVELS:
            kept = np.array([t["promised"][str(level)] for t in trials if str(level) in t["promised"]])
            if len(kept):
                promised, held, number = kept.mean(axis=0)
                print(f"  expected {promised:.3f}: {held:.3f} of {number:.0f}")
    return out


def encoded(picture: PIL.Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def copied(picture: PIL.Image.Image, how: str, rng: np.random.Generator) -> bytes:
    width, height = picture.size
    if how == "crop":
        scale = rng.uniform(0.8, 0.95)
        w, h = round(width * scale), round(height * scale)
        x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
        return encoded(picture.crop((x, y, x + w, y + h)))
    if how == "recompressed":
        return encoded(picture, "JPEG", quality=int(rng.integers(30, 80)))
    if how == "resized":
        scale = rng.uniform(0.5, 0.8)
        return encoded(picture.resize((round(width * scale), round(height * scale)), PIL.Image.Resampling.BICUBIC))
    return encoded(picture)


def copies(args: argparse.Namespace) -> Any:
    features, _, images = read(args, args.split)
    rng = np.random.default_rng(5)
    number = round(0.02 * len(images))
    ways = np.repeat(["crop", "recompressed", "resized", "exact"], number)
    sources = rng.permutation(len(images))[: len(ways)]
    files = [copied(images[int(at)], how, rng) for at, how in zip(sources, ways, strict=True)]
    added = ImageSet.from_encoded(
        files,
        [None] * len(files),
        np.zeros(len(files), np.int64),
        ["copy"],
        ids=[f"copy {i}" for i in range(len(files))],
    )
    described_by = describing_model(None, args.backbone, args.weights, args.image_size)
    rows = np.concatenate([features, read_features(*described_by, added, progress=False).features])
    seen, seen_added = look_at(images), look_at(added)
    found = find_copies(
        rows.astype(np.float32),
        np.concatenate([seen.small, seen_added.small]),
        seen.digests + seen_added.digests,
    )
    first: dict[bytes, int] = {}
    # an exact copy of an exact copy is one of the first
    sources = [first.setdefault(seen.digests[at], at) for at in sources.tolist()]
    true = {(source, len(images) + at) for at, source in enumerate(sources)}
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    involved = [pair for pair in pairs if pair[1] >= len(images)]
    out = {"precision": sum(pair in true for pair in involved) / max(1, len(involved)), "pairs": len(pairs)}
    for how in dict.fromkeys(ways.tolist()):
        of_kind = [(sources[at], len(images) + at) for at in np.flatnonzero(ways == how).tolist()]
        out[f"recall_{how}"] = float(np.mean([pair in pairs for pair in of_kind]))
        print(f"{how:14} recall {out[f'recall_{how}']:.3f}")
    print(f"precision of pairs with an added copy {out['precision']:.3f}; pairs in all {len(pairs)}")
    return out


def scale(args: argparse.Namespace) -> Any:
    rng = np.random.default_rng(0)
    truth = rng.integers(args.classes, size=args.images)
    truth = np.unique(truth, return_inverse=True)[1]
    centres = rng.normal(size=(args.classes, 64)).astype(np.float32)
    mix = rng.normal(size=(64, args.width)).astype(np.float32) / 8
    features = np.empty((args.images, args.width), dtype=np.float16)
    for start in range(0, args.images, 2**12):
        at = slice(start, start + 2**12)
        noise = rng.normal(size=(len(truth[at]), 64)).astype(np.float32)
        features[at] = (centres[truth[at]] + 0.7 * noise) @ mix + 0.3 * rng.normal(size=(len(truth[at]), args.width))
    given = spoiled(truth, 0.1, 0)
    started, processor = time.monotonic(), time.process_time()
    scores = cross_fit(features, given, progress=True)
    expected_precision(scores)
    out = {
        "images": args.images,
        "classes": args.classes,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - processor,
        "auroc": roc_auc_score(given != truth, np.nan_to_num(scores.log_odds)),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "threads": torch.get_num_threads(),
    }
    print(out)
    return out


def training(args: argparse.Namespace) -> Any:
    features, truth, _ = read(args, "train")
    tested, tested_labels, tested_images = read(args, "test")
    out = []
    for seed in range(args.seeds):
        given = spoiled(truth, 0.1, seed)
        scores = cross_fit(features, given, seed=seed)
        found = np.nan_to_num(expected_precision(scores).above, nan=0) >= 0.7
        trial: dict[str, Any] = {"seed": seed}
        for name, labels_then in (
            ("clean", truth),
            ("noisy", given),
            ("audited", np.where(found, -1, given)),
            ("relabelled", np.where(found, scores.suggested, given)),
            ("oracle", np.where(given != truth, -1, given)),
        ):
            weight, bias = discriminant_head(features, labels_then, args.embedding_dim)
            embedded = tested.astype(np.float32) @ weight.T + bias
            metrics = retrieval_metrics(embedded, tested_labels, ks=(1,), groups=tested_images.groups)
            trial[name] = [100 * metrics["recall_at_1"], 100 * metrics["map_at_r"]]
        out.append(trial)
    for at, metric in enumerate(("R@1", "MAP@R")):
        for name in ("clean", "noisy", "audited", "relabelled", "oracle"):
            print(f"{metric:6} {name:10} {np.mean([trial[name][at] for trial in out]):.2f}")
        for name in ("audited", "relabelled"):
            gains = np.array([trial[name][at] - trial["noisy"][at] for trial in out])
            half = scipy.stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
            print(f"{metric:6} gain, {name} {gains.mean():+.2f} +- {half:.2f} (95 %, {len(gains)} seeds)")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("labels", "copies", "scale", "training"))
    parser.add_argument("--dataset", help="name, folder or Hub id")
    parser.add_argument("--split", default="test")
    parser.add_argument("--group-column")
    parser.add_argument("--superclass", default="subgroup", help="column of the data that names superclasses")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--embedding-dim", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--classes", type=int, default=11_000)
    parser.add_argument("--width", type=int, default=3136)
    parser.add_argument("--cache", help="start of the names of files that keep features")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = {"labels": labels, "copies": copies, "scale": scale, "training": training}[args.part](args)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1, default=float))


if __name__ == "__main__":
    main()
