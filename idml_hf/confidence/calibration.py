"""The probability that the first match is right, learnt from labelled queries, and what can be promised with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from idml_hf.metric_names import metric
from idml_hf.search.arrays import as_share

from .families import families
from .features import INPUTS, KNOWN, LESS_IS_BETTER, STRANGE_IF_LESS, MatchInputs
from .first_edition import CountedTests
from .labelled_queries import Outcomes
from .risk_control import RiskControl
from .verdict import Verdict

DELTA = 0.05
ABSENT = 0.3
"""Share of the queries whose class the collection lacks, unless told otherwise."""

PROMISES = (0.05, 0.1, 0.2)

_FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """A logistic model of the inputs, and the tests of what it promises. All of it is plain numbers.

    Args:
        signals: names of its inputs, see [`~idml_hf.confidence.features.match_inputs`].
        mean, scale: of each input.
        weights: of each standardised input.
        bias: of the model.
        risk: tests that give the threshold for a promised error rate.
        error_rate: promise kept where a search names none.
        metric: ranking it was learnt for.
        auroc: of the confidence on queries that it was not learnt from, against whether the first match is right.
        accuracy: share of these queries whose first match is right.
        queries: labelled queries it was learnt from and tested on.
        lone_queries: queries left out since nothing of their class was there to find.
        absent: share of the queries to come whose class the collection lacks.
        classes, families: how many there were; classes that are mistaken for each other are one family.
        low, high: smallest and largest value seen of each input.
        warnings: what speaks against the promise.
        surprise: of the classes on a list, at most, see [`~idml_hf.confidence.lists.levels_of`]; empty where lists
            were not calibrated.
    """

    signals: Sequence[str]
    mean: Sequence[float]
    scale: Sequence[float]
    weights: Sequence[float]
    bias: float
    risk: RiskControl | CountedTests
    error_rate: float
    metric: str
    auroc: float
    accuracy: float
    queries: int
    lone_queries: int
    absent: float = 0.0
    classes: int = 0
    families: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    warnings: Sequence[str] = ()
    surprise: Sequence[float | None] = ()

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        *,
        absent: float = ABSENT,
        error_rate: float = 0.1,
        delta: float = DELTA,
        metric: str = "cosine",
        use: Sequence[str] = INPUTS,
        seed: int = 0,
    ) -> Calibration:
        """Learn the confidence, and test promises on families of classes that it was not learnt from.

        The families are dealt into five parts; each part is judged by a model of the other four.

        Args:
            outcomes: labelled queries with the inputs of their first matches, with and without their class in the
                gallery.
            absent: share of the queries to come whose class the collection lacks, from 0 to below 1.
            error_rate: promise to keep where a search names none, in (0, 1).
            delta: chance that a promise is broken, in (0, 1).
            metric: ranking the inputs come from.
            use: inputs to use, as far as they are known of all queries.
            seed: deals the families.

        Raises:
            ValueError: if there are too few queries, or their first matches are all right or all wrong.
        """
        from sklearn.metrics import roc_auc_score

        absent, error_rate = as_share(absent, "absent", least=0), as_share(error_rate, "error_rate")
        weight = _weights(outcomes.present, absent)
        family = families(outcomes.classes, outcomes.answers)
        kept = weight > 0
        outcomes, weight, family = outcomes.select(kept), weight[kept], family[kept]
        use = [name for name in use if np.isfinite(outcomes.signals([name])).all()]
        values = outcomes.signals(use)
        number, correct = len(np.unique(outcomes.classes)), outcomes.correct
        queries = len(correct) if absent == 0 else int(outcomes.present.sum())
        if number < 2 or queries < 20:
            raise ValueError(
                f"{queries} labelled queries of {number} classes are too few to calibrate: it takes at least "
                "2 classes and tens of queries"
            )
        if correct.all() or not correct.any():
            raise ValueError("the first matches of the validation images are all right or all wrong: nothing to learn")
        mean, scale = np.average(values, axis=0, weights=weight), values.std(0)
        scale[scale < 1e-9] = 1.0
        z = (values - mean) / scale
        part = np.random.default_rng(seed).permutation(family.max() + 1)[family] % _FOLDS
        confidence = np.empty(len(z))
        for fold in np.unique(part):
            rest = part != fold
            model = _logistic(z[rest], correct[rest], weight[rest]) if rest.any() else None
            confidence[~rest] = float(correct[rest].mean() if rest.any() else 0) if model is None else model(z[~rest])
        model = _logistic(z, correct, weight)
        assert model is not None
        # the same picture under two classes is never an answer
        confidence = np.where(outcomes.rivals >= 0, 0.0, confidence)
        return cls(
            signals=tuple(use),
            mean=mean.tolist(),
            scale=scale.tolist(),
            weights=model.weights.tolist(),
            bias=model.bias,
            risk=RiskControl.test(confidence, correct, family, weight, delta),
            error_rate=error_rate,
            metric=metric,
            auroc=float(roc_auc_score(correct, confidence, sample_weight=weight)),
            accuracy=float(np.average(correct, weights=weight)),
            queries=queries,
            lone_queries=outcomes.lone,
            absent=absent,
            classes=number,
            families=int(family.max()) + 1,
            low=values.min(0).tolist(),
            high=values.max(0).tolist(),
        )

    def confidence(self, values: np.ndarray) -> np.ndarray:
        """Probability that the first match is right, (Q,), from the `signals` (Q, len(signals)); 0 for a row of NaN.

        An input beyond all that were seen counts as the last of them.
        """
        if len(self.low):
            values = np.clip(values, self.low, self.high)
        # the last bit depends on the order in memory, and the first edition's is kept
        z = (np.asfortranarray(values) - np.asarray(self.mean)) / np.asarray(self.scale)
        probability = 1 / (1 + np.exp(-(z @ np.asarray(self.weights) + self.bias)))
        return np.where(np.isfinite(probability), probability, 0.0)

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Which queries are like nothing that was seen, bool (Q,).

        Some input is beyond all that were seen, on the side where matches are worse; or nothing was found. A query
        that is nearer to its match than any seen, as a copy of it is, is no more certain than the nearest of those.
        """
        outside = ~np.isfinite(values).all(1)
        if len(self.low):
            low, high = np.asarray(self.low), np.asarray(self.high)
            room = 1e-6 + 0.02 * (high - low)
            less = np.isin(self.signals, LESS_IS_BETTER)
            strange = ~less | np.isin(self.signals, STRANGE_IF_LESS)
            outside |= ((less & (values > high + room)) | (strange & (values < low - room))).any(1)
        return outside

    def bar(self, error_rate: float | None = None) -> float:
        """The confidence that an answer takes under a promise; infinite if none is enough."""
        threshold = self.risk.threshold(self.error_rate if error_rate is None else error_rate)
        return float("inf") if threshold is None else threshold

    def predict(self, inputs: MatchInputs, error_rate: float | None = None) -> Verdict:
        """The verdict on queries by the `signals` of their first matches; `error_rate` None: the usual promise."""
        return Verdict(
            confidence=self.confidence(inputs.values),
            outside=self.outside(inputs.values),
            rivals=inputs.rivals,
            bar=self.bar(error_rate),
            error_rate=self.error_rate if error_rate is None else error_rate,
        )

    def table(self, promises: Sequence[float] = PROMISES) -> list[dict[str, Any]]:
        """What can be promised.

        Returns:
            For each promise `promise`, `bar`, the share `answered` beside what the best threshold in `hindsight` would
            have answered, and `more_classes`, about how many more it would take to answer anything: 0 if it is so
            already, None if more would not help.
        """
        rows = []
        for promise in promises:
            missing, bar = self.risk.missing(promise), self.bar(promise)
            rows.append(
                {
                    "promise": promise,
                    "bar": bar if np.isfinite(bar) else None,
                    "answered": self.risk.coverage(promise),
                    "hindsight": self.risk.hindsight(promise),
                    "more_classes": None if missing is None else int(np.ceil(missing * self.classes)),
                }
            )
        return rows

    def summary(self) -> str:
        """What it was learnt from, and how well it tells right from wrong, in a sentence without its full stop."""
        return (
            f"Calibrated with {self.queries} pictures of {self.classes} classes, as if the collection lacked the "
            f"class of {100 * self.absent:g} % of the queries; {metric('confidence_auroc').name} {self.auroc:.3f}"
        )

    def describe(self) -> str:
        """What can be promised, in lines of text."""
        lines = [self.summary()]
        for row in self.table():
            line = f"  at most {100 * row['promise']:g} % wrong: answers {100 * row['answered']:.0f} % of such queries"
            line += f" (at best, in hindsight, {100 * row['hindsight']:.0f} %)"
            if row["bar"] is None and row["more_classes"]:
                line += f"; it would take about {row['more_classes']} more classes"
            elif row["bar"] is None:
                line += "; more classes would not help"
            lines.append(line)
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Calibration:
        """The calibration of `to_json()`, by this edition or the first.

        Raises:
            ValueError: if it needs signals that this version does not know.
        """
        unknown = set(entry["signals"]) - set(KNOWN)
        if unknown:
            raise ValueError(f"the index was calibrated on signals this version does not know: {sorted(unknown)}")
        tests = CountedTests if "spread" in entry["risk"] else RiskControl
        return cls(**{**entry, "risk": tests(**entry["risk"])})


@dataclass(frozen=True)
class _Logistic:
    weights: np.ndarray
    bias: float

    def __call__(self, z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(z @ self.weights + self.bias)))


def _logistic(z: np.ndarray, correct: np.ndarray, weight: np.ndarray) -> _Logistic | None:
    """A logistic regression; None where there is but one outcome."""
    from sklearn.linear_model import LogisticRegression

    if correct.all() or not correct.any():
        return None
    model = LogisticRegression(max_iter=1000).fit(z, correct, weight)
    return _Logistic(model.coef_[0], float(model.intercept_[0]))


def _weights(present: np.ndarray, absent: float) -> np.ndarray:
    """How many of the queries to come each of these stands for; 1 on average."""
    if absent and present.all():
        raise ValueError("no query shows what the absence of a class looks like: calibrate with absent=0")
    weight = np.where(present, (1 - absent) / max(present.sum(), 1), absent / max((~present).sum(), 1))
    return weight * len(present)


__all__ = ["ABSENT", "DELTA", "PROMISES", "Calibration"]
