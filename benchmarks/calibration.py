"""What the confidence of a search is worth on classes that neither the model nor the calibration has seen.

    python benchmarks/calibration.py MODEL --dataset emoji --root DIR --group-column family --json calibration.json
    python benchmarks/calibration.py MODEL --dataset emoji-mini --absent 0.3 --splits 50

All classes that the model has not seen are dealt into two halves, many times: the test classes, and the training
classes held out if MODEL was trained with `--validation-fraction`. One half calibrates, the other is asked. Where a
share of the queries' classes is absent, so many classes of the other half, drawn at random, are each left out of the
gallery of their own queries. Counts over the halves, for each promise, absent share and choice of inputs:

- broken: share of the halves where more of the answers are wrong than promised;
- clearly_broken: where that is so by a one-sided binomial test at 5 %;
- answered: mean share of the queries answered, and hindsight: what the best threshold on these very queries would have
  answered;
- and, printed only, the AUROC of the confidence against "the first match is right" and "the class is there".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from idml_hf import IDMLImageProcessor, IDMLModel
from idml_hf.confidence.calibration import PROMISES, Calibration
from idml_hf.confidence.features import INPUTS
from idml_hf.confidence.labelled_queries import LabelledQueries, Outcomes, judge_among_themselves
from idml_hf.data import load_retrieval_data
from idml_hf.embedding import embed_dataset, training_cohort
from idml_hf.index.calibration_images import labelled_queries

ABSENT = (0.0, 0.3, 0.5)
CHOICES = {
    "all inputs": INPUTS,
    "without the uncertainty": tuple(name for name in INPUTS if "uncertainty" not in name),
    "similarity alone": INPUTS[:1],
}


def unseen_classes(options: argparse.Namespace) -> LabelledQueries:
    """The held-out training classes, if there are any, and the test classes."""
    model = IDMLModel.from_pretrained(options.model)
    processor = IDMLImageProcessor.from_pretrained(options.model)
    record = options.model / "run.json"
    run = json.loads(record.read_text())["run"] if record.is_file() else {}
    fraction = (
        run.get("validation_fraction", 0) if options.validation_fraction is None else options.validation_fraction
    )
    data = load_retrieval_data(
        options.dataset,
        root=options.root,
        group_column=options.group_column,
        validation_fraction=fraction,
        seed=run.get("seed", 0),
    )
    images, cohort = [part for part in (data.validation, data.test) if part is not None], training_cohort(model)
    return joined([labelled_queries(embed_dataset(model, processor, part), part, cohort) for part in images])


def joined(parts: Sequence[LabelledQueries]) -> LabelledQueries:
    """Sets of different classes as one."""
    offsets = np.cumsum([0, *(part.labels.max() + 1 for part in parts[:-1])])
    groups = [part.groups for part in parts if part.groups is not None]
    return LabelledQueries(
        np.concatenate([part.semantic for part in parts]),
        np.concatenate([part.uncertainty_embeds for part in parts]),
        np.concatenate([part.labels + offset for part, offset in zip(parts, offsets, strict=True)]),
        groups=np.concatenate(groups) if len(groups) == len(parts) else None,
        cohort=parts[0].cohort,
    )


def asked(outcomes: Outcomes, absent: float, seed: int) -> Outcomes:
    """Each query once: as it is, or without its class if that is among those drawn to be absent."""
    classes, counts = np.unique(outcomes.classes[~outcomes.present], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(classes))
    gone = classes[order[: np.searchsorted(np.cumsum(counts[order]) / counts.sum(), absent)]]
    return outcomes.select(np.isin(outcomes.classes, gone) != outcomes.present)


def hindsight(confidence: np.ndarray, correct: np.ndarray, promise: float) -> float:
    """Largest share of queries that a threshold could have answered with so many of the answers wrong."""
    order = np.argsort(-confidence, kind="stable")
    error = np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)
    ends = np.append(np.diff(confidence[order]) < 0, True)
    return float((np.flatnonzero((error <= promise) & ends) + 1).max(initial=0) / len(order))


def measure(
    unseen: LabelledQueries, absent: Sequence[float] = ABSENT, splits: int = 200
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the promises, and those of the AUROC."""
    kept: dict[tuple[str, float, float], list[tuple[float, ...]]] = {}
    order: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for split in tqdm(range(splits), desc="Splits"):
        classes = np.random.default_rng(split).permutation(np.unique(unseen.labels))
        fit, test = (
            judge_among_themselves(unseen.select(np.isin(unseen.labels, half)), most=None)
            for half in np.array_split(classes, 2)
        )
        for share in absent:
            queries = asked(test, share, split)
            for name, use in CHOICES.items():
                calibration = Calibration.fit(fit, absent=share, use=use, seed=split)
                values = queries.signals(calibration.signals)
                confidence = np.where(queries.rivals >= 0, 0, calibration.confidence(values))
                possible = ~calibration.outside(values) & (queries.rivals < 0)
                order.setdefault((name, share), []).append(aurocs(confidence, queries))
                for promise in PROMISES:
                    given = possible & (confidence >= calibration.bar(promise))
                    number, wrong = int(given.sum()), int((given & ~queries.correct).sum())
                    clearly = number > 0 and binom.sf(wrong - 1, number, promise) < 0.05
                    best = hindsight(confidence, queries.correct, promise)
                    outcome = (wrong > promise * number, clearly, number / len(given), best)
                    kept.setdefault((name, promise, share), []).append(outcome)
    names = "broken", "clearly_broken", "answered", "hindsight"
    rows = [
        {"confidence": name, "promise": promise, "absent": share}
        | {key: float(mean) for key, mean in zip(names, np.mean(outcomes, axis=0), strict=True)}
        for (name, promise, share), outcomes in kept.items()
    ]
    ordered = [
        {"confidence": name, "absent": share, "right": float(right), "there": float(there)}
        for (name, share), values in order.items()
        for right, there in [np.mean(values, axis=0)]
    ]
    return rows, ordered


def aurocs(confidence: np.ndarray, queries: Outcomes) -> tuple[float, float]:
    """Against "the first match is right", and against "the class is there" (NaN where all are)."""
    there = float("nan") if queries.present.all() else float(roc_auc_score(queries.present, confidence))
    return float(roc_auc_score(queries.correct, confidence)), there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dataset", default="emoji-mini")
    parser.add_argument("--root")
    parser.add_argument("--group-column", help="queries do not see the images of their class and group")
    parser.add_argument("--absent", type=float, help="share of queries whose class is not there; default: 0, 0.3, 0.5")
    parser.add_argument("--validation-fraction", type=float, help="default: what the model was trained with")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--json", type=Path, help="file for the rows of the promises")
    options = parser.parse_args()

    unseen = unseen_classes(options)
    grouped = "no groups" if unseen.groups is None else "images of a query's class and group are hidden"
    print(f"{len(unseen.labels)} images of {len(np.unique(unseen.labels))} unseen classes; {grouped}")
    rows, ordered = measure(unseen, ABSENT if options.absent is None else (options.absent,), options.splits)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    report(rows, ordered)


def report(rows: Sequence[dict[str, Any]], ordered: Sequence[dict[str, Any]]) -> None:
    """Print both tables."""
    print(f"\n{'AUROC':26}{'absent':>8}{'right':>8}{'there':>8}")
    for row in ordered:
        print(f"{row['confidence']:26}{row['absent']:8.2f}{row['right']:8.3f}{row['there']:8.3f}")
    print(f"\n{'':26}{'absent':>8}{'promise':>9}{'broken':>9}{'clearly':>9}{'answered':>10}{'hindsight':>11}")
    for row in rows:
        print(
            f"{row['confidence']:26}{row['absent']:8.2f}{row['promise']:9.2f}{row['broken']:9.3f}"
            f"{row['clearly_broken']:9.3f}{row['answered']:10.3f}{row['hindsight']:11.3f}"
        )


if __name__ == "__main__":
    main()
