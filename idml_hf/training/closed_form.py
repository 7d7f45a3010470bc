"""Fit a linear semantic head in closed form: regularised linear discriminant analysis on frozen features.

The head is the projection under which the spread between classes is largest in units of the spread within them
(Fisher, 1936; Rao, 1948), with the within-class scatter shrunk towards a multiple of the identity (Friedman, 1989). It
takes seconds, has no learning rate and no seed, and is the baseline that a trained head must beat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.sparse import csr_matrix
from torch import Tensor

_ROWS = 2**14  # rows turned to float32 at a time, so that features may stay in half precision in a file


def discriminant_head(
    features: Any, labels: Any, embedding_dim: int, shrinkage: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the linear map that tells the classes apart best.

    Memory is that of a few F x F matrices: features are read in blocks of rows, and may be mapped from a file.

    Args:
        features: `(N, F)` array, any float type.
        labels: Integers `(N,)`; rows of negative label are left out.
        embedding_dim: Number d of outputs, at most F and at most the number of classes less one; what is asked for
            beyond these is filled with directions of no weight.
        shrinkage: What is added to the within-class variance of each direction, in units of its mean, > 0.

    Returns:
        `weight` float32 (d, F) and `bias` float32 (d,): `weight @ x + bias` is the embedding before normalisation.

    Raises:
        ValueError: if there are fewer than two classes, no class has two images, or a feature is not finite.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(60, 5)) + 4 * np.repeat(np.eye(5)[:3], 20, axis=0)
        >>> weight, bias = discriminant_head(x, np.repeat([7, 8, 9], 20), embedding_dim=2)
        >>> weight.shape, bias.shape
        ((2, 5), (2,))
    """
    if shrinkage <= 0:
        raise ValueError(f"shrinkage must be positive, got {shrinkage}")
    labels = np.asarray(labels)
    if len(labels) != len(features):
        raise ValueError(f"{len(features)} features, but {len(labels)} labels")
    mean, means, counts, within = _scatter(features, labels)
    within[np.diag_indices_from(within)] += shrinkage * np.trace(within) / len(within)
    root = cholesky(within, lower=True, overwrite_a=True, check_finite=False)
    between = (means - mean) * np.sqrt(counts / counts.sum())[:, None]
    whitened = solve_triangular(root, between.T, lower=True)  # (F, C)
    directions = _leading_left_vectors(whitened, embedding_dim)
    weight = np.zeros((embedding_dim, len(mean)))
    weight[: directions.shape[1]] = solve_triangular(root.T, directions, lower=False).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def _scatter(features: Any, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, class means, class sizes and within-class covariance, from two passes over the rows."""
    classes, codes = np.unique(labels[labels >= 0], return_inverse=True)
    counts = np.bincount(codes, minlength=len(classes))
    if len(classes) < 2 or counts.max(initial=0) < 2:
        raise ValueError("a head is fitted on at least two classes, one of them with two images or more")
    width = features.shape[1]
    rows = np.full(len(labels), -1)
    rows[labels >= 0] = codes
    sums = np.zeros((len(classes), width))
    for block, code in _blocks(features, rows):
        members = csr_matrix((np.ones(len(code), np.float32), (code, np.arange(len(code)))), (len(classes), len(code)))
        sums += members @ block
    if not np.isfinite(sums).all():
        raise ValueError("the features have NaN or infinite values")
    means = sums / counts[:, None]
    within = torch.zeros(width, width, dtype=torch.float64)
    for block, code in _blocks(features, rows):
        # centred first, so that float32 products lose nothing that matters
        centred: Tensor = torch.from_numpy(block - means[code].astype(np.float32))
        within += (centred.T @ centred).double()
    within /= max(1, counts.sum() - len(classes))
    return sums.sum(0) / counts.sum(), means, counts, within.numpy()


def _blocks(features: Any, rows: np.ndarray) -> Any:
    for start in range(0, len(rows), _ROWS):
        code = rows[start : start + _ROWS]
        known = np.flatnonzero(code >= 0)
        if len(known):
            yield np.asarray(features[start : start + _ROWS], dtype=np.float32)[known], code[known]


def _leading_left_vectors(matrix: np.ndarray, number: int) -> np.ndarray:
    """The left singular vectors of the largest singular values, from the smaller of the two Gram matrices."""
    rows, columns = matrix.shape
    number = min(number, rows, columns - 1)
    if columns <= rows:
        values, right = eigh(matrix.T @ matrix, subset_by_index=[columns - number, columns - 1])
        right, values = right[:, ::-1], np.maximum(values[::-1], 1e-12)
        return (matrix @ right) / np.sqrt(values)
    return eigh(matrix @ matrix.T, subset_by_index=[rows - number, rows - 1])[1][:, ::-1]


__all__ = ["discriminant_head"]
