"""What the confidence of a search is worth on classes that neither the model nor the calibration has seen.

    python benchmarks/calibration.py MODEL --dataset emoji --root DIR
    python benchmarks/calibration.py MODEL --dataset emoji-mini --splits 50

MODEL is what `idml-hf train --validation-fraction 0.25` wrote: the training classes held out there calibrate. Prints

1. the AUROC of the confidence on the test classes, against whether the first match is right, over calibrations that
   differ in which classes they learn from; and the same without each input, and with each input alone;
2. over class-disjoint halves of all unseen classes, calibrating on one half and asking on the other, how often a
   promised error rate is broken, and the share of queries answered; the same for a confidence of the similarity alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from idml_hf import IDMLImageProcessor, IDMLModel
from idml_hf.confidence.calibration import fit_calibration
from idml_hf.confidence.features import SIGNALS
from idml_hf.confidence.labelled_queries import (
    JudgedQueries,
    LabelledQueries,
    judge_among_themselves,
)
from idml_hf.data import load_retrieval_data
from idml_hf.embedding import embed_dataset
from idml_hf.index.calibration_images import labelled_queries

PROMISES = (0.05, 0.1, 0.2)


def embedded(model_folder: Path, dataset: str, root: str | None, fraction: float | None) -> list[LabelledQueries]:
    """The held-out training classes and the test classes."""
    model = IDMLModel.from_pretrained(model_folder)
    processor = IDMLImageProcessor.from_pretrained(model_folder)
    seed = 0
    if fraction is None:
        run = json.loads((model_folder / "run.json").read_text())["run"]
        fraction, seed = run["validation_fraction"], run["seed"]
    if not fraction:
        raise SystemExit("the model was trained without held-out classes: there is nothing to calibrate on")
    data = load_retrieval_data(dataset, root=root, validation_fraction=fraction, seed=seed)
    assert data.validation is not None
    return [
        labelled_queries(embed_dataset(model, processor, images), images) for images in (data.validation, data.test)
    ]


def joined(parts: Sequence[LabelledQueries]) -> LabelledQueries:
    """Sets of different classes as one."""
    offsets = np.cumsum([0, *(part.labels.max() + 1 for part in parts[:-1])])
    groups = [part.groups for part in parts]
    return LabelledQueries(
        np.concatenate([part.semantic for part in parts]),
        np.concatenate([part.uncertainty_embeds for part in parts]),
        np.concatenate([part.labels + offset for part, offset in zip(parts, offsets, strict=True)]),
        groups=None if any(group is None for group in groups) else np.concatenate(groups),
    )


def of_classes(queries: LabelledQueries, classes: np.ndarray) -> LabelledQueries:
    """The images of some classes."""
    rows = np.isin(queries.labels, classes)
    return replace(
        queries,
        semantic=queries.semantic[rows],
        uncertainty_embeds=queries.uncertainty_embeds[rows],
        labels=queries.labels[rows],
        groups=None if queries.groups is None else queries.groups[rows],
    )


def auroc(fit: JudgedQueries, test: JudgedQueries, use: Sequence[str], seeds: int) -> tuple[float, float]:
    """Mean and smallest AUROC on `test` of confidences from `use`."""
    calibrations = (fit_calibration(fit, use=use, seed=seed) for seed in range(seeds))
    values = [roc_auc_score(test.correct, calibration.confidence(test.signals)) for calibration in calibrations]
    return float(np.mean(values)), float(np.min(values))


def promises(unseen: LabelledQueries, splits: int) -> dict[tuple[str, float], np.ndarray]:
    """By confidence and promise, means over splits of: broken, clearly broken, share answered, any answer."""
    inputs = {"all inputs": SIGNALS, "similarity alone": SIGNALS[:1]}
    rows: dict[tuple[str, float], list[tuple[float, ...]]] = {(name, p): [] for name in inputs for p in PROMISES}
    classes = np.unique(unseen.labels)
    for split in tqdm(range(splits), desc="Splits"):
        order = np.random.default_rng(split).permutation(classes)
        fit, test = (judge_among_themselves(of_classes(unseen, half)) for half in np.array_split(order, 2))
        for name, use in inputs.items():
            calibration = fit_calibration(fit, use=use, seed=split)
            for promise in PROMISES:
                given = ~calibration.predict(test.signals, promise).abstained
                wrong, number = int((given & ~test.correct).sum()), int(given.sum())
                clear = number > 0 and binomtest(wrong, number, promise, alternative="greater").pvalue < 0.05
                rows[name, promise].append((wrong > promise * number, clear, given.mean(), number > 0))
    return {key: np.mean(outcomes, axis=0) for key, outcomes in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dataset", default="emoji-mini")
    parser.add_argument("--root")
    parser.add_argument("--validation-fraction", type=float, help="default: what the model was trained with")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=8, help="calibrations that differ in what they learn from")
    options = parser.parse_args()

    parts = embedded(options.model, options.dataset, options.root, options.validation_fraction)
    fit, test = (judge_among_themselves(part) for part in parts)
    for name, judged in (("held-out training classes", fit), ("test classes", test)):
        print(f"{name}: {len(judged.correct)} queries, first match right: {judged.correct.mean():.3f}")
    print(f"\n{'inputs of the confidence':32}{'AUROC':>8}{'worst':>8}")
    print(f"{'all':32}{'{:8.3f}{:8.3f}'.format(*auroc(fit, test, SIGNALS, options.seeds))}")
    for name in SIGNALS:
        others = [other for other in SIGNALS if other != name]
        print(f"{'without ' + name:32}{'{:8.3f}{:8.3f}'.format(*auroc(fit, test, others, options.seeds))}")
    for name in SIGNALS:
        print(f"{name + ' alone':32}{'{:8.3f}{:8.3f}'.format(*auroc(fit, test, [name], options.seeds))}")
    outcomes = promises(joined(parts), options.splits)
    print(f"\n{options.splits} class-disjoint splits; clearly: by a one-sided binomial test at 5 %")
    print(f"{'confidence':18}{'promise':>9}{'broken':>9}{'clearly':>9}{'answered':>10}{'splits with answers':>21}")
    for (name, promise), (broken, clear, share, any_answer) in outcomes.items():
        print(f"{name:18}{promise:9.2f}{broken:9.3f}{clear:9.3f}{share:10.3f}{any_answer:21.3f}")


if __name__ == "__main__":
    main()
