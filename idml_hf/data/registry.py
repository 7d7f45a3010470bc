"""The data sets known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .image_set import ImageSet


@dataclass(frozen=True)
class DatasetSpec:
    """How to get a data set, how to split it, and what must come out.

    Args:
        name: name in the registry.
        title: name in words.
        task: `retrieval` (classes of train and test are disjoint) or `classification` (they are the same).
        hub_id: data set on the Hub, or None.
        revision: commit of `hub_id` to read, or None if none has been verified.
        image_column, label_column, class_name_column, group_column: columns on the Hub and in parquet files.
        num_train_classes: the first so many classes train and the others test; None: the splits are used as they come.
        expected: split -> (images, classes); another number is an error.
        reader: reads the official layout below a folder into split -> images.
        layout: what `reader` expects to find, in words.
        embedded: folder in the package with `train.parquet` and `test.parquet`, or None.
    """

    name: str
    title: str
    task: str = "retrieval"
    hub_id: str | None = None
    revision: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    class_name_column: str | None = None
    group_column: str | None = None
    num_train_classes: int | None = None
    expected: Mapping[str, tuple[int, int]] | None = None
    reader: Callable[[Path], dict[str, ImageSet]] | None = None
    layout: str = "train.parquet and test.parquet"
    embedded: Path | None = None


_SPECS = (
    DatasetSpec(
        name="emoji-mini",
        title="Emoji across art styles, 48 px",
        expected={"train": (2300, 240), "test": (2279, 240)},
        embedded=Path(__file__).parent / "emoji_mini",
        class_name_column="name",
        group_column="family",
    ),
    DatasetSpec(
        name="emoji",
        title="Emoji across art styles, 64 px",
        expected={"train": (7518, 931), "test": (7462, 931)},
        class_name_column="name",
        group_column="family",
    ),
)

DATASETS: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
