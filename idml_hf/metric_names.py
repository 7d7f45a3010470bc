"""What each metric is called, counted in and rounded to, and whether more of it is better: the one table.

Terminal, report, model card, paper tables and curves read it, and the metrics themselves build their keys by it. A key
of `metrics.json` is put together as

    [eval_] [plain_ | with_reference_ | without_reference_ | untrained_ | pixels_] [macro_] METRIC [_SIGNAL]
    [_ambiguous] [_within_groups]

so `plain_aurc_margin` is the AURC (metric) of the margin (signal) without the rule of groups (prefix). Without a
signal it is that of the uncertainty, whose AUROC is written `r_auroc`. This file imports nothing heavy:
`idml-hf --help` needs it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from .errors import did_you_mean

_SCALES = {"": 1.0, "%": 100.0, "‰": 1000.0, "s": 1.0, "images/s": 1.0}
UNDEFINED = "undefined"


@dataclass(frozen=True)
class Metric:
    """A metric, as people read it.

    Args:
        key: Its key in `metrics.json`; `{n}` stands for a number (`recall_at_{n}`), `{name}` for a word.
        title: Short: the head of a column.
        name: Long: for those who meet it first, and for the Hub. By default the title.
        unit: `"%"` and `"‰"` for shares in [0, 1], which are multiplied for reading; else what is counted, or nothing.
        digits: Decimals in that unit.
        higher_is_better: Whether more is better; None where neither is.
        paper: Its name in the paper's tables. By default the title.
    """

    key: str
    title: str
    name: str = ""
    unit: str = ""
    digits: int = 3
    higher_is_better: bool | None = True
    paper: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.title)
        object.__setattr__(self, "paper", self.paper or self.title)

    @property
    def scale(self) -> float:
        """Factor from the value in `metrics.json` to the one that is printed."""
        return _SCALES[self.unit]

    def text(self, value: Any) -> str:
        """A value with its unit.

        Example:
            >>> metric("recall_at_1").text(0.4431), metric("r_auroc").text(0.64714), metric("aurc").text(None)
            ('44.3 %', '0.647', 'undefined')
        """
        if not is_number(value):
            return UNDEFINED if value is None or isinstance(value, float) else str(value)
        return f"{self.scale * value:.{self.digits}f} {self.unit}".rstrip()


@dataclass(frozen=True)
class Signal:
    """Something that tells certain from uncertain queries, or right from wrong pairs.

    Args:
        key: What metrics of it end in; empty for the uncertainty.
        title: Short: the head of a row.
        phrase: What it is, within a sentence.
    """

    key: str
    title: str
    phrase: str


# The uncertainty of the model, and then what costs nothing.
SIGNALS: dict[str, Signal] = {
    signal.key: signal
    for signal in (
        Signal("", "uncertainty", "the uncertainty"),
        Signal("max_similarity", "max similarity", "the similarity of the best match"),
        Signal("margin", "margin", "the lead of the best match over the best one of another class"),
        Signal("norm", "embedding norm", "the norm of the embedding"),
        Signal("knn_distance", "kNN distance", "the mean distance of the nearest images"),
        Signal("confidence", "confidence", "the calibrated confidence"),
        Signal("cosine", "cosine", "the cosine of the two embeddings"),
        # of a classifier, whose own signal is the largest probability
        Signal("uncertainty", "uncertainty", "the uncertainty"),
    )
}


def _share(key: str, title: str, name: str = "", digits: int = 1, **rest: Any) -> Metric:
    return Metric(key, title, name, "%", digits, **rest)


_METRICS = (
    # retrieval
    _share("recall_at_{n}", "R@{n}", "Recall@{n}"),
    _share("r_precision", "RP", "R-Precision"),
    _share("map_at_r", "MAP@R", paper="M@R"),
    _share("map_at_{n}", "MAP@{n}"),
    _share("mrr", "MRR", "Mean reciprocal rank"),
    _share("nmi", "NMI", "Normalised mutual information"),
    _share("ami", "AMI", "Adjusted mutual information"),
    _share("f1", "F1", "F1 of pairs in a cluster"),
    _share("error_rate", "error", "1 - Recall@1", higher_is_better=False),
    Metric("num_queries", "queries", digits=0, higher_is_better=None),
    Metric("num_lone_queries", "lone queries", "Queries without another image of their class", "", 0, None),
    Metric("num_clusters", "clusters", digits=0, higher_is_better=None),
    # what the uncertainty is worth
    Metric("auroc", "AUROC", paper="R-AUROC"),
    Metric("r_auroc", "R-AUROC of the uncertainty", paper="R-AUROC"),
    Metric("r_auroc_ceiling", "R-AUROC ceiling", "R-AUROC of a probe that was told half the answers"),
    Metric("r_auroc_ceiling_low", "ceiling, low", "Lower 95 % bound of the ceiling"),
    Metric("r_auroc_ceiling_high", "ceiling, high", "Upper 95 % bound of the ceiling"),
    _share("r_auroc_ceiling_reached", "ceiling reached", "Share of the way from chance to the ceiling"),
    Metric("aurc", "AURC", "Area under risk and coverage", "‰", 2, False),
    Metric("e_aurc", "e-AURC", "AURC above that of the perfect order", "‰", 2, False),
    _share("accuracy_at_{n}_coverage", "R@1 at {n} %", "Recall@1 of the {n} % most certain"),
    Metric("uncertainty_mean", "mean of u", "Mean uncertainty", higher_is_better=None),
    Metric("uncertainty_std", "spread of u", "Standard deviation of the uncertainty", higher_is_better=None),
    # harder and foreign images
    Metric("crop_test", "crop", "Share of images whose crop is less certain"),
    Metric("corruption_spearman", "corruptions", "Rank correlation with the strength of corruptions"),
    Metric("corruption_spearman_{name}", "{name}", "Rank correlation with the strength of {name}"),
    Metric("robustness_images", "images", "Images that were made harder", "", 0, None),
    Metric("ambiguous_images", "images", "Queries, half of them degraded", "", 0, None),
    Metric("degraded_auroc", "degraded", "AUROC of degraded against clean"),
    Metric("ood_auroc", "OOD AUROC", "AUROC of another domain against this one"),
    Metric("noise_auroc", "noise", "AUROC of noise against pictures"),
    Metric("blank_auroc", "blank", "AUROC of blank images against pictures"),
    Metric("absent_auroc", "absent class", "AUROC of queries whose class is absent"),
    # pairs of images
    Metric("num_pairs", "pairs", "Pairs of images", "", 0, None),
    Metric("pair_auroc", "pair AUROC", "AUROC of same against different"),
    _share("pair_eer", "EER", "Equal error rate of pairs", higher_is_better=False),
    Metric("pair_brier", "Brier", "Brier score of pairs", higher_is_better=False),
    _share("pair_ece", "pair ECE", "Calibration error of pairs", 2, higher_is_better=False),
    # the calibrated confidence
    Metric("confidence_auroc", "confidence AUROC", "AUROC of the calibrated confidence"),
    _share("answered_at_{n}", "answered at {n} %", "Answered at a promised error of {n} %"),
    _share("error_at_{n}", "error at {n} %", "Measured error at a promised {n} %", higher_is_better=False),
    # classification
    _share("top1", "top-1", "Top-1 accuracy", 2, paper="Top-1 Acc"),
    _share("top5", "top-5", "Top-5 accuracy", 2, paper="Top-5 Acc"),
    _share("ece", "ECE", "Expected calibration error", 2, higher_is_better=False),
    Metric("nll", "NLL", "Negative log-likelihood", digits=4, higher_is_better=False),
    # the run
    Metric("loss", "loss", digits=4, higher_is_better=False),
    Metric("seconds", "time", unit="s", digits=0, higher_is_better=False),
    Metric("train_images_per_second", "training speed", unit="images/s", digits=0),
)
METRICS: dict[str, Metric] = {entry.key: entry for entry in _METRICS}

# What a metric was measured of or under, where that is not the model under the run's protocol.
PREFIXES: dict[str, str] = {
    "plain_": "ungrouped",
    "with_reference_": "with reference",
    "without_reference_": "without reference",
    "untrained_": "before training",
    "pixels_": "of raw pixels",
    "macro_": "mean over classes",
}
SUFFIXES: dict[str, str] = {"_within_groups": "within groups", "_ambiguous": "half the queries degraded"}

_FAMILIES = {entry.key: entry for entry in _METRICS if "{" in entry.key}


@dataclass(frozen=True)
class NamedKey:
    """A key of `metrics.json`, taken apart; see the grammar at the top."""

    metric: Metric
    signal: Signal
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]


def key_for(name: str, signal: str = "", *, prefix: str = "", suffix: str = "") -> str:
    """The key of a metric of a signal.

    Example:
        >>> key_for("auroc"), key_for("auroc", "margin", suffix="_ambiguous"), key_for("aurc", prefix="plain_")
        ('r_auroc', 'auroc_margin_ambiguous', 'plain_aurc')
    """
    if name in ("auroc", "r_auroc"):
        name = "auroc" if signal else "r_auroc"
    return f"{prefix}{name}{'_' if signal else ''}{signal}{suffix}"


@cache
def parse(key: str) -> NamedKey | None:
    """A key taken apart, or None for what is no metric (`dataset`, `seed`).

    Example:
        >>> parts = parse("plain_accuracy_at_80_coverage_margin")
        >>> parts.metric.title, parts.signal.title, parts.prefixes
        ('R@1 at 80 %', 'margin', ('plain_',))
        >>> parse("dataset") is None
        True
    """
    rest, prefixes, suffixes, signal = key.removeprefix("eval_"), [], [], ""
    while (found := _base(rest)) is None:
        prefix = next((prefix for prefix in PREFIXES if rest.startswith(prefix)), "")
        suffix = next((suffix for suffix in SUFFIXES if rest.endswith(suffix)), "")
        named = next((name for name in SIGNALS if name and rest.endswith(f"_{name}")), "")
        if prefix:
            prefixes.append(prefix)
            rest = rest.removeprefix(prefix)
        elif suffix:
            suffixes.append(suffix)
            rest = rest.removesuffix(suffix)
        elif named and not signal:
            signal = named
            rest = rest.removesuffix(f"_{named}")
        else:
            return None
    return NamedKey(found, SIGNALS[signal], tuple(prefixes), tuple(suffixes))


def metric(key: str) -> Metric:
    """The metric of a key, with a title that says what it was measured of.

    Raises:
        KeyError: if there is no such metric.

    Example:
        >>> metric("recall_at_10").title, metric("with_reference_map_at_r").title, metric("auroc_margin").name
        ('R@10', 'MAP@R with reference', 'AUROC of the margin')
    """
    parts = parse(key)
    if parts is None:
        raise KeyError(f"no metric is called {key!r}.{did_you_mean(key, METRICS)}")
    entry, words = parts.metric, [PREFIXES[prefix] for prefix in parts.prefixes]
    words += [SUFFIXES[suffix] for suffix in parts.suffixes]
    of = f" of the {parts.signal.title}" if parts.signal.key else ""
    tail = "".join(f" {word}" for word in words)
    return replace(
        entry,
        key=key,
        title=f"{entry.title}{of}{tail}",
        name=f"{entry.name}{of}{tail}",
        paper=f"{entry.paper}{of}{tail}",
    )


def protocol_in_words(protocol: str) -> str:
    """What counts as a match under a protocol.

    Example:
        >>> protocol_in_words("grouped:family")
        'matches of the same family do not count'
    """
    kind, _, column = protocol.partition(":")
    return f"matches of the same {column} do not count" if kind == "grouped" else "all matches count"


def measured(metrics: dict[str, Any], *names: str) -> list[str]:
    """Those of the keys that metrics hold, in the order asked for; a family (`recall_at_{n}`) in that of the metrics.

    Example:
        >>> measured({"nmi": 0.5, "recall_at_1": 0.4, "recall_at_8": 0.7}, "recall_at_{n}", "map_at_r", "nmi")
        ['recall_at_1', 'recall_at_8', 'nmi']
    """
    return [key for name in names for key in _matching(metrics, name)]


def is_number(value: Any) -> bool:
    """Whether a value can be printed as a number: no flag, no text, not undefined."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _matching(keys: Iterable[str], name: str) -> list[str]:
    if name not in _FAMILIES:
        return [name] if name in keys else []
    return [key for key in keys if _family(key) == name]


@cache
def _pattern(family: str) -> re.Pattern[str]:
    return re.compile(re.escape(family).replace(r"\{n\}", r"(\d+)").replace(r"\{name\}", "([a-z]+)"))


def _family(key: str) -> str | None:
    """The family (`recall_at_{n}`) that a key without prefix, signal and suffix belongs to."""
    if key in METRICS or key.endswith((*SUFFIXES, *(f"_{signal}" for signal in SIGNALS if signal))):
        return None
    return next((family for family in _FAMILIES if _pattern(family).fullmatch(key)), None)


def _base(key: str) -> Metric | None:
    family = _family(key)
    if family is None:
        return METRICS.get(key) if "{" not in key else None
    match = _pattern(family).fullmatch(key)
    assert match is not None
    entry, word = _FAMILIES[family], match[1]
    title, name, paper = (re.sub(r"{(n|name)}", word, text) for text in (entry.title, entry.name, entry.paper))
    return replace(entry, key=key, title=title, name=name, paper=paper)


__all__ = [
    "METRICS",
    "PREFIXES",
    "SIGNALS",
    "UNDEFINED",
    "Metric",
    "NamedKey",
    "Signal",
    "is_number",
    "key_for",
    "measured",
    "metric",
    "parse",
    "protocol_in_words",
]
