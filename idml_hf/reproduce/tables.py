"""What the tables consist of: their rows are recipes and a few settings, their columns are metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from idml_hf.configuration_idml import METHODS as ALL_METHODS
from idml_hf.configuration_idml import method_of_form
from idml_hf.metric_names import metric

PLAIN = "plain"
METHODS = tuple(method for method in ALL_METHODS if method != PLAIN)
"""The methods that a table compares with plain losses."""


@dataclass(frozen=True)
class Column:
    """A metric of a table.

    Args:
        title: Its name in the paper's table.
        key: Its name in the metrics of a run.
        scale: Factor from the one to the other.
        digits: Decimals to print.
        higher_is_better: Whether more is better.
    """

    title: str
    key: str
    scale: float = 100.0
    digits: int = 1
    higher_is_better: bool = True

    @classmethod
    def of(cls, key: str) -> Column:
        """The column of a metric, as the table of all metrics has it."""
        entry = metric(key)
        return cls(entry.paper, key, entry.scale, entry.digits, entry.higher_is_better is not False)


@dataclass(frozen=True)
class Row:
    """A method of a table.

    Args:
        name: Its name in the paper's table.
        recipes: Files below the recipes' folder; the keys of later ones replace those of earlier ones.
        settings: Fields of the run that replace those of the recipes.
        against: Name of the row it is compared with, seed by seed. A row without one is plain.
        lacks: Methods that do not have this row.
    """

    name: str
    recipes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    lacks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table of the paper, or one in its layout.

    Args:
        name: What `--table` calls it.
        title: Its title.
        task: `retrieval` or `classification`.
        rows: The methods.
        columns: The metrics.
        paper: Name of the data set in the paper's table, or None.
        seeds: Number of seeds unless told otherwise.
        default_method: Method of the rows that are compared with plain ones, unless told otherwise; None means the
            task's.
        folder: Whether the data set is a folder, which `--root` names, instead of one known by name.
    """

    name: str
    title: str
    task: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    paper: str | None = None
    seeds: int = 3
    default_method: str | None = None
    folder: bool = False

    @property
    def method(self) -> str:
        """Method of the rows that are compared with plain ones, unless told otherwise."""
        return self.default_method or method_of_form(None, self.task)


# in the order of the paper's tables: the plain loss, its introspective form, and the loss's name here
LOSS_ROWS = (
    ("Triplet-SH", "IDML-TSH", "triplet_semihard"),
    ("ProxyNCA", "IDML-PN", "proxy_nca"),
    ("FastAP", "IDML-FAP", "fast_ap"),
    ("Contrastive", "IDML-Con", "contrastive"),
    ("Margin-DW", "IDML-MDW", "margin_dw"),
    ("Multi-Sim", "IDML-MS", "multi_similarity"),
    ("ProxyAnchor", "IDML-PA", "proxy_anchor"),
)

RECALL_AT_1 = Column.of("recall_at_1")
RETRIEVAL_REST = tuple(map(Column.of, ("nmi", "r_precision", "map_at_r")))
RETRIEVAL_COLUMNS = (RECALL_AT_1, Column.of("recall_at_2"), *RETRIEVAL_REST)
SOP_COLUMNS = (RECALL_AT_1, Column.of("recall_at_10"), *RETRIEVAL_REST)
# with what the model remembers of its training images; all other columns are without it, in all rows
WITH_REFERENCE = tuple(map(Column.of, ("with_reference_recall_at_1", "with_reference_map_at_r")))
R_AUROC = Column.of("r_auroc")
# what the uncertainty is worth: on clean pictures beside what they let one know, and where half are degraded
UNCERTAINTY = (
    R_AUROC,
    *map(
        Column.of,
        ("r_auroc_ceiling", "r_auroc_ambiguous", "auroc_max_similarity_ambiguous", "degraded_auroc"),
    ),
)
TOP1, TOP5 = Column.of("top1"), Column.of("top5")
AURC = Column.of("aurc")
CALIBRATION = tuple(map(Column.of, ("ece", "nll")))


def retrieval_rows(
    *recipes: str, loss_kwargs: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any
) -> tuple[Row, ...]:
    """The seven losses, each plain and introspective, on top of `recipes`.

    Args:
        recipes: Files below the recipes' folder.
        loss_kwargs: Hyper-parameters of a loss, for both of its rows, in the place of the recipe's.
        settings: Further settings of all rows.
    """
    rows = []
    for plain, ours, loss in LOSS_ROWS:
        parts = (*recipes, f"losses/{loss}.yaml")
        own = (loss_kwargs or {}).get(loss)
        both = settings if own is None else settings | {"loss_kwargs": dict(own)}
        # the authors' code has ProxyAnchor only
        lacks = frozenset() if loss == "proxy_anchor" else frozenset({"released"})
        rows.append(Row(plain, parts, both))
        rows.append(Row(ours, parts, both, against=plain, lacks=lacks))
    return tuple(rows)


def classification_rows(*recipes: str, cutmix_probability: float) -> tuple[Row, ...]:
    """Without mixing, with Mixup and with CutMix, each plain and with the metric, on top of `recipes`."""
    mixes = (
        ("Baseline", "ISM-Baseline", {"mix": "none"}),
        ("Mixup", "IDML-Mixup", {"mix": "mixup", "mix_alpha": 1.0, "mix_probability": 1.0}),
        ("Cutmix", "IDML-Cutmix", {"mix": "cutmix", "mix_alpha": 1.0, "mix_probability": cutmix_probability}),
    )
    rows = []
    for plain, ours, mix in mixes:
        rows.append(Row(plain, recipes, mix))
        rows.append(Row(ours, recipes, mix, against=plain))
    return tuple(rows)


def _retrieval_tables() -> list[Table]:
    tables = []
    for name, title in (("cub", "CUB-200-2011"), ("cars", "Cars196"), ("sop", "Stanford Online Products")):
        columns = SOP_COLUMNS if name == "sop" else RETRIEVAL_COLUMNS
        rows = retrieval_rows(f"paper/{name}.yaml")
        tables.append(Table(name, title, "retrieval", rows, columns, paper=title, default_method="published"))
        for trunk in ("dinov2", "siglip"):
            rows = retrieval_rows(f"modern/{trunk}.yaml", dataset=name)
            own = (*columns, *WITH_REFERENCE)
            tables.append(Table(f"{name}-{trunk}", f"{title}, {trunk}", "retrieval", rows, own))
    return tables


def _classification_tables() -> list[Table]:
    imagenet = classification_rows("classification/imagenet.yaml", cutmix_probability=1.0)
    tables = [Table("imagenet", "ImageNet-1K", "classification", imagenet, (TOP1, TOP5), "ImageNet-1K", seeds=1)]
    for name, title, columns in (("cifar100", "Cifar 100", (TOP1, TOP5)), ("cifar10", "Cifar 10", (TOP1,))):
        recipe = f"classification/{name}.yaml"
        rows = classification_rows(recipe, cutmix_probability=0.5)
        tables.append(Table(name, f"{title}, PyramidNet-200", "classification", rows, columns, title))
        rows = classification_rows(recipe, "classification/resnet50_small.yaml", cutmix_probability=0.5)
        tables.append(Table(f"{name}-resnet50", f"{title}, ResNet-50", "classification", rows, columns, title))
    return tables


# The better of two settings of each plain loss on held-out training classes; the introspective one takes it over.
EMOJI_LOSSES: dict[str, dict[str, Any]] = {
    "proxy_nca": {"scale": 16.0},
    "fast_ap": {"num_bins": 20},
    "contrastive": {"neg_margin": 0.75},
    "margin_dw": {"margin": 0.3},
    "multi_similarity": {"base": 0.7},
    "proxy_anchor": {"margin": 0.3},
}

EMOJI = Table(
    "emoji",
    "Emoji, cross-style",
    "retrieval",
    retrieval_rows("emoji.yaml", loss_kwargs=EMOJI_LOSSES),
    (*RETRIEVAL_COLUMNS, *WITH_REFERENCE, *UNCERTAINTY),
)

ICONS = Table(
    "icons",
    "Icons, across makers",
    "retrieval",
    retrieval_rows("icons.yaml", loss_kwargs=EMOJI_LOSSES),
    (*RETRIEVAL_COLUMNS, *WITH_REFERENCE, *UNCERTAINTY),
    folder=True,
)

FASHION_MNIST = Table(
    "fashion-mnist",
    "Fashion-MNIST",
    "classification",
    classification_rows("classification/fashion-mnist.yaml", cutmix_probability=0.5),
    (TOP1, AURC, *CALIBRATION),
    seeds=5,
)

TABLES = {
    table.name: table for table in (*_retrieval_tables(), *_classification_tables(), EMOJI, ICONS, FASHION_MNIST)
}
"""All tables by name."""

__all__ = ["TABLES", "Column", "Row", "Table", "classification_rows", "retrieval_rows"]
