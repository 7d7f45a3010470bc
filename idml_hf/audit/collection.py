"""Audit a collection: read it, judge it, and write down what was found."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from idml_hf.data import ImageSet, as_image_set
from idml_hf.data.exclusions import is_harmful
from idml_hf.data.image_set import UNLABELLED
from idml_hf.data.sources import open_source
from idml_hf.data.splits import join_splits
from idml_hf.files import replacing, write_json
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.modeling_idml import IDMLModel
from idml_hf.training.frozen_trunk import read_features

from .copies import find_copies
from .cross_fitting import cross_fit
from .expected_precision import expected_precision
from .findings import COLUMNS, Collection, Finding, counts, find_copied, find_doubtful_labels, find_unusable, in_order
from .page import write_page
from .pictures import look_at

LEAST_PRECISION = 0.7
"""Wrong labels are listed as far as this share of the list is expected to be wrong."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found in a collection.

    Args:
        findings: The findings, by kind, those with the highest score first.
        images: The collection.
        wrong_labels: Estimated share of wrong labels among those that could be judged, 0 to 1; None if none could.
        judged: Number of labels that could be judged: those of a class with another picture.
    """

    findings: list[Finding]
    images: ImageSet
    wrong_labels: float | None
    judged: int

    @property
    def summary(self) -> dict[str, Any]:
        """Numbers, ready for JSON."""
        return {
            "images": len(self.images),
            "classes": self.images.num_classes,
            "labels_judged": self.judged,
            "estimated_share_of_wrong_labels": self.wrong_labels,
            "findings": counts(self.findings),
        }

    def table(self) -> pd.DataFrame:
        """The findings with the columns of `findings.csv`."""
        return pd.DataFrame([finding[: len(COLUMNS)] for finding in self.findings], columns=list(COLUMNS))

    def save(self, folder: str | Path, title: str = "") -> None:
        """Write `findings.csv`, `summary.json` and the page `findings.html`."""
        folder = Path(folder)
        with replacing(folder / "findings.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(_row(finding) for finding in self.findings)
        write_page(folder / "findings.html", self.findings, self.images, self.summary, title)
        write_json(folder / "summary.json", self.summary)

    def write_kept(self, path: str | Path) -> int:
        """Write a table of the pictures that stay, with `path` and `label`; no picture is touched.

        Returns:
            Their number.
        """
        out = {finding.path for finding in self.findings if is_harmful(finding.kind, finding.score)}
        kept = [at for at, name in enumerate(self.images.ids.to_pylist()) if name not in out]
        with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label"))
            for at in kept:
                label = self.images.labels[at]
                writer.writerow(
                    (self.images.image_id(at), "" if label == UNLABELLED else self.images.class_names[label])
                )
        return len(kept)


def _row(finding: Finding) -> list[Any]:
    precision = finding.expected_precision
    row = list(finding[: len(COLUMNS)])
    row[COLUMNS.index("score")] = f"{finding.score:.6f}"
    row[COLUMNS.index("expected_precision")] = "" if precision is None else f"{precision:.4f}"
    return row


def audit(
    images: Any,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    *,
    model: str | Path | IDMLModel | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    image_size: int | None = None,
    group_column: str | None = None,
    output: str | Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Find what is wrong in a labelled collection.

    Args:
        images: Name, folder or Hub id of a data set, all splits of which are looked at; or whatever
            [`idml_hf.data.as_image_set`] takes.
        labels, class_names: As for `as_image_set`, of images that come without.
        model: An [`IDMLModel`], its folder or its Hub id, whose backbone describes the pictures. One that was trained
            on these labels has seen them, wrong ones too: a backbone that has not finds more.
        backbone: timm architecture with pretrained weights instead.
        weights: Local file of the backbone's weights.
        image_size: Side of the images for the backbone, pixels; default: its own.
        group_column: Column of a data set: pictures of one class and group do not speak for each other's label.
        output: Folder for `findings.csv`, `findings.html` and `summary.json`.
        options: Those of `audit_images`.

    Returns:
        A table with the columns `path`, `label`, `suggested_label`, `kind`, `score`, `expected_precision` and
        `duplicate_of`, see [`idml_hf.audit.findings.Finding`].

    Raises:
        ValueError: if neither a model nor a backbone is named, or both are; if the images have no classes.
        FileNotFoundError, OSError: if data, model or weights cannot be had.
    """
    found, splits = open_collection(images, labels, class_names, group_column=group_column)
    name = str(images) if isinstance(images, (str, Path)) else ""
    described_by = describing_model(model, backbone, weights, image_size)
    result = audit_images(found, *described_by, **{"splits": splits} | options)
    if output is not None:
        result.save(output, name)
    return result.table()


def describing_model(
    model: str | Path | IDMLModel | None,
    backbone: str | None,
    weights: str | Path | None = None,
    image_size: int | None = None,
) -> tuple[IDMLModel, IDMLImageProcessor]:
    """The model whose features describe the pictures, and its image processor.

    Raises:
        ValueError: if neither a model nor a backbone is named, or both are.
    """
    if (model is None) == (backbone is None):
        raise ValueError(
            "an audit needs a model (--model) or a backbone (--backbone), one of them, to describe pictures"
        )
    if backbone is not None:
        built = IDMLModel.from_backbone(backbone, weights=weights, pool="statistics", image_size=image_size)
        return built, IDMLImageProcessor.from_backbone(backbone, image_size)
    if weights is not None or image_size is not None:
        raise ValueError("weights and image_size are of a backbone; a model has its own")
    if isinstance(model, IDMLModel):
        return model, IDMLImageProcessor.for_model(model)
    assert model is not None
    return IDMLModel.from_pretrained(str(model)), IDMLImageProcessor.from_pretrained(str(model))


def open_collection(
    images: Any,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    *,
    root: str | Path | None = None,
    group_column: str | None = None,
) -> tuple[ImageSet, np.ndarray]:
    """All pictures of a data set, those that cannot be read too, and the split `(N,)` of each, numbered in order."""
    named = isinstance(images, (str, Path, datasets.Dataset, datasets.DatasetDict))
    if not named or (isinstance(images, (str, Path)) and Path(images).is_file()):
        if group_column is not None:
            raise ValueError("group_column is a column of a data set; an ImageSet has its groups")
        found = as_image_set(images, labels, class_names)
        return found, np.zeros(len(found), dtype=np.int64)
    source = open_source(images, root=root, group_column=group_column)
    order = sorted(source.splits, key=lambda split: ("all", "train", "validation", "test").index(split))
    sizes = [len(source.splits[split]) for split in order]
    found = join_splits({split: source.splits[split] for split in order})
    if labels is not None:
        found = as_image_set(found, labels, class_names)
    return found, np.repeat(np.arange(len(order)), sizes)


def audit_images(
    images: ImageSet,
    model: IDMLModel,
    processor: IDMLImageProcessor,
    *,
    splits: np.ndarray | None = None,
    least_precision: float = LEAST_PRECISION,
    batch_size: int = 64,
    num_workers: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> Audit:
    """Audit images with a model at hand.

    Args:
        images: The collection; its groups are respected.
        model: Whose backbone describes the pictures.
        processor: Its image processor.
        splits: Integers `(N,)`, equal for pictures of one split.
        least_precision: Wrong labels are listed as far as this share of the list is expected to be wrong, 0 to 1.
        batch_size: Images at a time.
        num_workers: Processes that decode.
        seed: Deals pictures into folds.
        progress: Whether to show progress bars.

    Raises:
        ValueError: if the images have no classes, or no two of them have some class.
    """
    if not 0 <= least_precision <= 1:
        raise ValueError(f"least_precision must lie in [0, 1], got {least_precision}")
    if not images.num_classes:
        raise ValueError("an audit needs images with classes")
    pictures = look_at(images, progress or None)
    collection = Collection(
        images.ids.to_pylist(),
        images.labels,
        images.class_names,
        np.zeros(len(images), dtype=np.int64) if splits is None else splits,
    )
    findings = find_unusable(collection, pictures)
    usable = np.flatnonzero(pictures.readable)
    stored = read_features(
        model, processor, images.select(usable), batch_size=batch_size, num_workers=num_workers, progress=progress
    )
    judged = np.flatnonzero(stored.labels != UNLABELLED)
    labels = np.unique(stored.labels[judged], return_inverse=True)
    groups = None if stored.groups is None else stored.groups[judged]
    scores = cross_fit(stored.features[judged], labels[1], groups, seed=seed, progress=progress)
    scores.suggested[:] = labels[0][scores.suggested]
    expected = expected_precision(scores)
    findings += find_doubtful_labels(collection, usable[judged], scores, expected, least_precision)
    odds = np.full(len(images), np.nan)
    odds[usable[judged]] = scores.log_odds
    telling = usable[np.isin(usable, [f.place for f in findings if f.kind == "blank"], invert=True)]
    within = np.searchsorted(usable, telling)
    copies = find_copies(
        stored.features[within].astype(np.float32), pictures.small[telling], [pictures.digests[at] for at in telling]
    )
    findings += find_copied(collection, copies._replace(pairs=telling[copies.pairs]), odds)
    known = int(np.isfinite(scores.log_odds).sum())
    return Audit(in_order(findings), images, expected.wrong if known else None, known)


__all__ = ["LEAST_PRECISION", "Audit", "audit", "audit_images", "describing_model", "open_collection"]
