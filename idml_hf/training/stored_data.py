"""What a run trains on when it is given vectors: stored features of a backbone, or embeddings of another model."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idml_hf.configuration_idml import VECTORS, IDMLConfig
from idml_hf.data import VectorSet, generator, load_vectors
from idml_hf.data.splits import hold_out_classes, split_by_class, split_last_classes

from .feature_store import BACKBONE_FILE, FeatureStore, is_store
from .frozen_trunk import FrozenFeatures
from .settings import Run

logger = logging.getLogger("idml_hf.training")

_REMEMBERED = 2048

MOST_TEST_VECTORS = 10_000
"""More test vectors than these are not measured: the time of an evaluation grows with the square of their number."""


@dataclass(frozen=True, eq=False)
class VectorData:
    """Vectors to fit heads to, and to measure them on; otherwise as `RetrievalData`.

    Args:
        name: what the vectors are called.
        train, validation, test: as for `RetrievalData`.
        group_column: what `groups` of the sets stand for, or None.
        degraded: vectors of degraded training images, as for `FrozenFeatures`; None where there are none.
        trunk_weights: the weights of the backbone that made them, as far as that is known.
    """

    name: str
    train: VectorSet
    validation: VectorSet | None
    test: VectorSet
    group_column: str | None
    degraded: tuple[Any, Any] | None
    trunk_weights: str

    @property
    def protocol(self) -> str:
        """As of `RetrievalData`."""
        return "plain" if self.group_column is None else f"grouped:{self.group_column}"

    @property
    def features(self) -> FrozenFeatures:
        """What heads are fitted to."""
        return FrozenFeatures(self.train.vectors, self.degraded, self.train.labels, self.train.groups)


def run_on_vectors(run: Run) -> tuple[Run, VectorData]:
    """The run with all that its vectors say of the model, and the data.

    Stored features make a model that takes pictures, with the backbone that is kept beside them; all other vectors
    make a model that takes such vectors.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming a file that does not fit, or a setting that the vectors leave no choice of.
    """
    assert run.features is not None
    path = Path(run.features)
    if is_store(path):
        return _on_store(run, FeatureStore.open(path))
    splits = load_vectors(path, run.labels, run.group_column)
    data = _divided(run, path.name, splits)
    width = data.train.width
    own = {
        "backbone": VECTORS,
        "backbone_kwargs": {"width": width},
        "pool": "avg",
        "pretrained": False,
        "embedding_dim": run.embedding_dim or min(IDMLConfig.embedding_dim, width),
        # a model of vectors is asked about many of them, and the time it takes grows with what it remembers
        "reference_size": run.reference_size or _REMEMBERED,
    }
    return _with(run, own | {"weights": None, "image_size": None, "crop_pct": None}), data


def _on_store(run: Run, store: FeatureStore) -> tuple[Run, VectorData]:
    plan = store.plan
    if run.test_fraction is not None:
        raise ValueError("test_fraction divides classes, and those of stored features are divided already")
    if run.labels is not None:
        raise ValueError(f"{store.folder} has the labels of its images: leave out --labels")
    own = {name: plan[name] for name in ("backbone", "pool", "image_size", "crop_pct", "group_column")}
    own |= {"backbone_kwargs": plan["backbone_kwargs"] or {}, "weights": str(store.folder / BACKBONE_FILE)}
    train, validation, test = (store.splits.get(split) for split in ("train", "validation", "test"))
    assert train is not None and test is not None
    if run.validation_fraction:
        train, validation = hold_out_classes(train, run.validation_fraction, run.seed)
    data = VectorData(
        plan["dataset"], train, validation, _few(test), plan["group_column"], store.degraded, plan["trunk_weights"]
    )
    return _with(run, own | {"pretrained": None}), data


def _divided(run: Run, name: str, splits: dict[str, VectorSet]) -> VectorData:
    """Train and test classes, disjoint, as for images."""
    known = {split: some.select(some.labels >= 0) for split, some in splits.items()}
    if not all(some.num_classes for some in known.values()):
        raise ValueError(f"{name} has no labels, and heads are fitted to classes: a column `label`, or --labels")
    validation = None
    if "all" in known:
        if run.test_fraction is None:
            train, test = split_by_class(known["all"])
        else:
            train, test = split_last_classes(known["all"], run.test_fraction)
    elif run.test_fraction is not None:
        raise ValueError(f"test_fraction divides classes, and those of {name} are divided already")
    elif "train" in known and "test" in known:
        train, test = known["train"].renumbered(), known["test"].renumbered()
        validation = known["validation"].renumbered() if "validation" in known else None
    else:
        raise ValueError(f"{name} has no train and test vectors; it has {', '.join(known)}")
    if train.width != test.width:
        raise ValueError(f"{name}: train has vectors of {train.width} values, test of {test.width}")
    if run.validation_fraction:
        train, validation = hold_out_classes(train, run.validation_fraction, run.seed)
    return VectorData(name, train, validation, _few(test), run.group_column, None, "none")


def _with(run: Run, own: dict[str, Any]) -> Run:
    """The run with these settings, none of which it may have otherwise."""
    for name, value in own.items():
        given = getattr(run, name)
        if given not in (None, {}, value):
            raise ValueError(f"{name} is {value!r} in {run.features}, and cannot become {given!r}: leave it out")
    return dataclasses.replace(run, frozen_trunk=True, **own)


def _few(test: VectorSet) -> VectorSet:
    """At most `MOST_TEST_VECTORS`, by leaving out whole classes."""
    if len(test) <= MOST_TEST_VECTORS:
        return test
    counts = np.bincount(test.labels, minlength=test.num_classes)
    order = generator(0).permutation(test.num_classes)
    kept = order[np.cumsum(counts[order]) <= MOST_TEST_VECTORS]
    if len(kept) < 2:
        kept = order[:2]
    some = test.select(np.isin(test.labels, kept)).renumbered()
    logger.warning("%d of %d test vectors are measured, all those of %d classes", len(some), len(test), len(kept))
    return some


__all__ = ["VectorData", "run_on_vectors"]
