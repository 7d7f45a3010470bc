"""Judge each label by a class model that has not seen it: cross-fitted discriminant analysis and neighbours.

Pictures are dealt into folds, class by class. For each fold the others give a discriminant projection, the posterior
of each class mean, and neighbours. A held-out picture's score for a class adds up what two views of the class say: the
predictive density of a class that is one cloud (probabilistic linear discriminant analysis: it knows how little three
pictures tell of a mean), and the sum over its pictures of a kernel, which a class of several clouds needs.

References:
    Ioffe, "Probabilistic Linear Discriminant Analysis", ECCV 2006; Friedman, "Regularized Discriminant Analysis", JASA
    1989; Chernozhukov et al., "Double/Debiased Machine Learning", 2018 (cross-fitting); Northcutt et al., "Confident
    Learning", JAIR 2021 (labels judged by out-of-fold probabilities).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from tqdm.auto import tqdm

from idml_hf.data import generator
from idml_hf.training.closed_form import discriminant_head

from .class_scores import ClassScores

# chosen on the training classes of two data sets, under symmetric and semantic label noise
FOLDS = 5
_COMPONENTS = 512  # principal components of the features, which know no label
_DIRECTIONS = 128  # discriminant directions
_SHARPNESS = 32.0  # of the kernel exp(32 cosine)
_TEMPER = 0.3  # of the cloud's log density, whose directions are not as independent as it believes
_ROWS = 256  # judged at a time, against all others
_SAMPLE = 2**14  # rows that give the principal components
_BLOCK = 2**12  # rows projected at a time
STRATA = (10, 100, np.iinfo(np.int64).max)  # ends of ranks: how near one class is to another
_DRAWS = 4  # other labels tried on each picture, in each stratum
_TINY = 1e-12
_STREAM = 0xA0D17


def cross_fit(
    features: Any, labels: Any, groups: Any = None, *, folds: int = FOLDS, seed: int = 0, progress: bool = False
) -> ClassScores:
    """Score the label of each picture by the pictures of other folds.

    Args:
        features: `(N, F)` array of any float type, which may be mapped from a file.
        labels: Integers `(N,)`, 0 to C - 1, with C >= 2.
        groups: Integers `(N,)`: pictures of one class and group are in one fold, so that none speaks for another; or
            None.
        folds: Number of folds, at least 2.
        seed: Deals pictures into folds.
        progress: Whether to show a progress bar.

    Returns:
        The scores. Time grows with N^2, memory with N.

    Raises:
        ValueError: naming what is wrong with the arrays; if there are fewer than two classes, or no class has two
            pictures.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(60, 8)) + 6 * np.repeat(np.eye(8)[:3], 20, axis=0)
        >>> labels = np.repeat([0, 1, 2], 20)
        >>> labels[5] = 2
        >>> scores = cross_fit(x, labels)
        >>> int(scores.log_odds.argmax()), int(scores.suggested[5])
        (5, 0)
    """
    labels = np.asarray(labels)
    _check(features, labels, groups, folds)
    rng = generator(seed, _STREAM)
    rows = principal_components(features, rng)
    fold, number = _deal(labels, groups, folds, rng), int(labels.max()) + 1
    scores = ClassScores.empty(len(labels), len(STRATA), _DRAWS)
    with tqdm(total=len(labels), desc="Judging labels", unit="image", disable=not progress) as bar:
        for held_out in range(folds):
            model = _ClassModel(rows, np.where(fold != held_out, labels, -1), number)
            places = np.flatnonzero(fold == held_out)
            for start in range(0, len(places), _ROWS):
                at = places[start : start + _ROWS]
                scores.put(at, *_judge(model, rows[at], labels[at], rng))
                bar.update(len(at))
    return scores


def _check(features: Any, labels: np.ndarray, groups: Any, folds: int) -> None:
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    if labels.shape != (len(features),):
        raise ValueError(f"{len(features)} features, but labels of shape {labels.shape}")
    if groups is not None and np.shape(groups) != labels.shape:
        raise ValueError(f"{len(labels)} labels, but groups of shape {np.shape(groups)}")
    if labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise ValueError("labels must be integers from 0 on")
    counts = np.bincount(labels)
    if (counts > 0).sum() < 2 or counts.max() < 2:
        raise ValueError("an audit needs at least two classes, one of them with two pictures or more")


def principal_components(features: Any, rng: np.random.Generator) -> np.ndarray:
    """float32 `(N, K)`: the features in their K leading principal directions, those of a sample of the rows.

    Raises:
        ValueError: if a feature is not finite.
    """
    count, width = features.shape
    chosen = np.arange(count) if count <= _SAMPLE else np.sort(rng.permutation(count)[:_SAMPLE])
    some = np.asarray(features[chosen], dtype=np.float32)
    mean = some.mean(axis=0)
    number = min(_COMPONENTS, width)
    if number < width:
        some -= mean
        centred = torch.from_numpy(some)
        covariance = (centred.T @ centred).numpy()
        if not np.isfinite(covariance).all():
            raise ValueError("the features have NaN or infinite values")
        turn = eigh(covariance, subset_by_index=[width - number, width - 1], overwrite_a=True)[1].astype(np.float32)
    else:
        turn = np.eye(width, dtype=np.float32)
    del some
    out = np.empty((count, number), dtype=np.float32)
    for start in range(0, count, _BLOCK):
        block = np.asarray(features[start : start + _BLOCK], dtype=np.float32)
        out[start : start + _BLOCK] = (block - mean) @ turn
    if not np.isfinite(out).all():
        raise ValueError("the features have NaN or infinite values")
    return out


def _deal(labels: np.ndarray, groups: Any, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each picture, those of one class (or its groups) as evenly as can be."""
    units = (
        np.arange(len(labels))
        if groups is None
        else np.unique(np.stack([labels, groups]), axis=1, return_inverse=True)[1]
    )
    _, first, of_unit = np.unique(units, return_index=True, return_inverse=True)
    order = np.lexsort((rng.random(len(first)), labels[first]))
    fold = np.empty(len(first), dtype=np.int64)
    fold[order] = np.arange(len(first)) % folds
    return fold[of_unit]


def _judge(
    model: _ClassModel, rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """The fields of `ClassScores`, of some held-out pictures."""
    line = np.arange(len(labels))
    values, nearest = model.scores(rows)
    top = values.argmax(axis=1)
    odds = np.exp(values - values[line, top][:, None])
    total = odds.sum(axis=1)
    other = model.at_ranks(top, rng)  # (n, strata, draws)
    share = np.where(other >= 0, odds[line[:, None, None], other], np.nan) / total[:, None, None]
    # a label tried is not to be the one that was given, and is to be of a class of which something is known
    share[(other == labels[:, None, None]) | (share == 0)] = np.nan
    tried = np.log(np.maximum(1 - share, _TINY)) - np.log(share)
    own = values[line, labels].copy()
    values[line, labels] = -np.inf
    suggested = values.argmax(axis=1)
    best = values[line, suggested]
    others = np.log(np.exp(values - best[:, None]).sum(axis=1)) + best
    known = np.isfinite(own)
    log_odds = np.where(known, others - np.where(known, own, 0), np.nan)
    return log_odds, suggested, model.stratum(suggested, labels), nearest, tried


class _ClassModel:
    """Classes as the rows of non-negative label show them."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, number: int) -> None:
        known = np.flatnonzero(labels >= 0)
        known = known[np.argsort(labels[known], kind="stable")]
        codes = labels[known]
        self.counts = np.bincount(codes, minlength=number)
        present = self.counts > 0
        directions = min(_DIRECTIONS, rows.shape[1], int(present.sum()) - 1)
        self.weight, self.bias = discriminant_head(rows, labels, directions)
        points = self._project(rows[known])
        self.present, starts = np.flatnonzero(present), np.flatnonzero(np.diff(codes, prepend=-1))
        self.starts = starts
        sums = np.add.reduceat(points, starts, axis=0).astype(np.float64)
        counts = self.counts[present].astype(np.float64)[:, None]
        means = sums / counts
        # what the spread of the means has beyond that of a mean of so many pictures is the spread of the classes
        spread = ((means - points.mean(axis=0)) ** 2 * counts).sum(axis=0) / counts.sum()
        between = np.maximum(spread - len(counts) / counts.sum(), 1e-3)
        shrunk = between / (counts * between + 1)
        variance = 1 + shrunk
        centre = shrunk * sums
        self.precision = (-0.5 / variance).T.astype(np.float32)
        self.slope = (centre / variance).T.astype(np.float32)
        self.offset = (-0.5 * (centre**2 / variance + np.log(variance)).sum(axis=1)).astype(np.float32)
        self.scale = np.sqrt(between / (between + 1)).astype(np.float32)
        self.points = self._directed(points)
        self.number = number
        self.near = self._nearest_classes(self._directed(means.astype(np.float32)))

    def _project(self, rows: np.ndarray) -> np.ndarray:
        return rows @ self.weight.T + self.bias

    def _directed(self, points: np.ndarray) -> np.ndarray:
        points = points * self.scale
        return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)

    def scores(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score `(n, number)` of each class, -inf where nothing is known of it, and the largest cosine `(n,)`."""
        points = self._project(rows)
        cosine = self._directed(points) @ self.points.T
        nearest = cosine.max(axis=1)
        cosine *= _SHARPNESS
        kernel = np.add.reduceat(np.exp(cosine, out=cosine), self.starts, axis=1)
        cloud = (points**2) @ self.precision + points @ self.slope + self.offset
        out = np.full((len(rows), self.number), -np.inf)
        out[:, self.present] = _TEMPER * cloud + np.log(kernel)
        return out, nearest

    def at_ranks(self, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Other classes `(n, strata, draws)` at random, by how near they are to `classes`; -1 where there is none."""
        out = np.full((len(classes), len(STRATA), _DRAWS), -1)
        for number, (first, last) in enumerate(itertools.pairwise((0, *STRATA))):
            last = min(last, self.near.shape[1])
            if first < last:
                ranks = rng.integers(first, last, size=(len(classes), _DRAWS))
                out[:, number] = np.take_along_axis(self.near[classes], ranks, axis=1)
        if self.number - 1 > self.near.shape[1]:
            drawn = (classes[:, None] + rng.integers(1, self.number, size=(len(classes), _DRAWS))) % self.number
            is_near = (self.near[classes][:, None] == drawn[:, :, None]).any(axis=2)
            out[:, -1] = np.where(is_near, -1, drawn)
        return out

    def stratum(self, classes: np.ndarray, others: np.ndarray) -> np.ndarray:
        """How near `others` are to `classes`: numbers `(n,)` of `STRATA`."""
        found = self.near[classes] == others[:, None]
        rank = np.where(found.any(axis=1), found.argmax(axis=1), self.number)
        return np.searchsorted(STRATA[:-1], rank, side="right")

    def _nearest_classes(self, means: np.ndarray) -> np.ndarray:
        """The classes `(number, K)` whose means are nearest to that of each class, nearest first."""
        size = min(STRATA[-2], len(self.present) - 1)
        out = np.full((self.number, size), -1)
        for start in range(0, len(means), _ROWS):
            at = np.arange(start, min(start + _ROWS, len(means)))
            cosine = means[at] @ means.T
            cosine[np.arange(len(at)), at] = -np.inf
            near = np.argpartition(-cosine, size - 1, axis=1)[:, :size]
            order = np.argsort(-np.take_along_axis(cosine, near, axis=1), axis=1, kind="stable")
            out[self.present[at]] = self.present[np.take_along_axis(near, order, axis=1)]
        return out


__all__ = ["FOLDS", "cross_fit", "principal_components"]
