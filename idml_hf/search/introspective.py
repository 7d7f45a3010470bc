"""Exact ranking by the introspective distance at about the cost of a cosine search.

For query i and item j, D = alpha * exp(-beta / (tau * alpha)) with alpha = ||s_i - s_j|| and beta = ||u_i + u_j||
(see `idml_hf.similarity`). Since beta <= ||u_i|| + ||u_j||, and D rises in alpha and falls in beta,

    L = alpha * exp(-(||u_i|| + ||u_j||) / (tau * alpha)) <= D.

Let t be the k-th smallest D found so far. With the largest ||u_j|| of a block of items, L > t holds for every alpha
beyond r = a / W(a / t), a = (||u_i|| + max ||u_j||) / tau, W Lambert's function. So a product of the semantic
embeddings and one comparison rule out nearly all items of a block; the few that are left are held against L with their
own ||u_j||, and only then is D computed, in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import lambertw

from idml_hf.similarity import TAU

from .arrays import as_tensor
from .exact import top_k
from .rescoring import STEPS, introspective, single_precision_error, squared_distances

_PAIRS = 2**17  # pairs a block: its scores stay in the processor's cache
_QUERIES = 128  # queries a pass over the gallery
_CHUNKS = 16  # places in the gallery that give the first threshold
_DENSE = 1e-3  # share of a block's pairs beyond which all their uncertainties are compared by one product
_USELESS = 1 / 2  # share of a block's pairs beyond which the bound has not paid: D is taken of all of them
_LARGEST = 1e15  # norm of an uncertainty up to which bounds can be computed in float32
_SAFETY = 1 - 1e-5  # keeps a bound computed in float32 below the true one


@dataclass(frozen=True)
class IntrospectiveMatches:
    """Result of `nearest_introspective`.

    Args:
        scores: float64 (Q, k), -D, largest first.
        positions: int64 (Q, k), ties by the smaller position.
        reranked: share of all (query, item) pairs that the bound did not rule out.
    """

    scores: np.ndarray
    positions: np.ndarray
    reranked: float


def nearest_introspective(
    queries: np.ndarray,
    query_uncertainty: np.ndarray,
    gallery: np.ndarray,
    gallery_uncertainty: np.ndarray,
    k: int,
    tau: float = TAU,
    device: torch.device | str = "cpu",
) -> IntrospectiveMatches:
    """The `k` items of smallest introspective distance, as `top_k(..., metric="introspective")` finds them.

    Args:
        queries: float32 (Q, d), unit rows.
        query_uncertainty: float32 (Q, d_u).
        gallery: float32 (N, d), unit rows; may be mapped from a file.
        gallery_uncertainty: float32 (N, d_u).
        k: 1 to N.
        tau: temperature, > 0.
        device: where to compute. A GPU compares everything in double precision, without bounds.

    Example:
        >>> s, u = np.eye(3, dtype=np.float32), np.ones((3, 1), dtype=np.float32)
        >>> nearest_introspective(s[:1], u[:1], s, u, k=2).positions.tolist()
        [[0, 1]]
    """
    if torch.device(device).type != "cpu":
        arguments = (queries, query_uncertainty, gallery, gallery_uncertainty, k, tau)
        return _compare_all(*arguments, torch.device(device))
    norms = np.concatenate([_norms(part) for part in np.array_split(gallery_uncertainty, _CHUNKS)])
    if not max(norms.max(), _norms(query_uncertainty).max()) < _LARGEST:
        arguments = (queries, query_uncertainty, gallery, gallery_uncertainty, k, tau)
        return _compare_all(*arguments, torch.device("cpu"))

    q, u_q, g, u_g = (as_tensor(rows) for rows in (queries, query_uncertainty, gallery, gallery_uncertainty))

    def search(start: int) -> IntrospectiveMatches:
        part = slice(start, start + size)
        try:
            return _Pass(q[part], u_q[part], g, u_g, k, tau, norms).run()
        except _BoundUselessError:
            arguments = (queries[part], query_uncertainty[part], gallery, gallery_uncertainty, k, tau)
            return _compare_all(*arguments, torch.device("cpu"))

    workers = torch.get_num_threads()
    size = min(_QUERIES, -(-len(queries) // workers))
    with _single_threaded(workers) as pool:
        parts = list(pool.map(search, range(0, len(queries), size)))
    return IntrospectiveMatches(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.positions for part in parts]),
        float(np.average([part.reranked for part in parts], weights=[len(part.scores) for part in parts])),
    )


def _norms(rows: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.linalg.norm(rows, axis=1)


@contextmanager
def _single_threaded(workers: int) -> Iterator[Executor]:
    """Threads whose matrix products stay in them: on small blocks, waiting for each other costs more than it saves."""
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        # the number is each thread's own, but the last one set is what new threads start with
        torch.set_num_threads(workers)


class _BoundUselessError(Exception):
    """More pairs are left than it would cost to compare all of them."""


def _compare_all(
    queries: np.ndarray,
    query_uncertainty: np.ndarray,
    gallery: np.ndarray,
    gallery_uncertainty: np.ndarray,
    k: int,
    tau: float,
    device: torch.device,
) -> IntrospectiveMatches:
    scores, positions = top_k(
        queries,
        gallery,
        k,
        metric="introspective",
        uncertainty=query_uncertainty,
        gallery_uncertainty=gallery_uncertainty,
        tau=tau,
        device=device,
    )
    return IntrospectiveMatches(scores.numpy(), positions.numpy(), 1.0)


class _Pass:
    """One pass of at most `_QUERIES` queries over the gallery, a block of items at a time."""

    def __init__(
        self,
        queries: torch.Tensor,
        query_uncertainty: torch.Tensor,
        gallery: torch.Tensor,
        gallery_uncertainty: torch.Tensor,
        k: int,
        tau: float,
        norm_g: np.ndarray,
    ) -> None:
        self.q, self.u_q, self.g, self.u_g = queries, query_uncertainty, gallery, gallery_uncertainty
        self.k, self.tau = k, tau
        self.norm_q, self.norm_g = _norms(query_uncertainty.numpy()), norm_g
        self.error = single_precision_error(queries.shape[1])
        self.error_u = single_precision_error(query_uncertainty.shape[1])
        self.squares = np.full((len(queries), k), np.inf)
        self.positions = np.full((len(queries), k), len(gallery), dtype=np.int64)
        # at least k items are known to have a D^2 of at most this
        self.known = self._first_threshold()
        self.left = self.exact = 0

    def run(self) -> IntrospectiveMatches:
        size = int(np.clip(_PAIRS // len(self.q), 1024, 2**15))
        buffer = torch.empty(len(self.q), size)
        affordable = len(self.q) * (len(self.g) // 50 + 64 * self.k)
        for start in range(0, len(self.g), size):
            block = self.g[start : start + size]
            out = buffer if len(block) == size else torch.empty(len(self.q), len(block))
            self._block(start, block, torch.mm(self.q, block.T, out=out).numpy(), out)
            if self.exact > affordable:
                raise _BoundUselessError
        pairs = len(self.q) * len(self.g)
        return IntrospectiveMatches(-np.sqrt(self.squares), self.positions, self.left / pairs)

    def _first_threshold(self) -> np.ndarray:
        """D^2 of the k-th best of a sample, whose items are compared by the cosine first."""
        number = min(len(self.g), max(4096, len(self.g) // 32, 4 * self.k))
        length = -(-number // _CHUNKS)
        starts = np.linspace(0, len(self.g) - length, _CHUNKS).astype(np.int64)
        sample = np.unique(starts[:, None] + np.arange(length))
        near = (self.q @ self.g[torch.from_numpy(sample)].T).topk(min(self.k + 16, len(sample))).indices.numpy()
        rows = np.repeat(np.arange(len(self.q)), near.shape[1])
        squares = self._exact(rows, sample[near].ravel()).reshape(near.shape)
        return np.partition(squares, self.k - 1, axis=1)[:, self.k - 1]

    def _block(self, start: int, block: torch.Tensor, cosines: np.ndarray, buffer: torch.Tensor) -> None:
        u_block = self.u_g[start : start + len(block)]
        norm_g = self.norm_g[start : start + len(block)]
        found = self.squares[:, -1]
        # an item that ties with the k-th found comes after it; one that ties with the sample may come before
        threshold = np.sqrt(np.where(found <= self.known, found, self.known + 1 / STEPS))
        a = (self.norm_q.astype(np.float64) + norm_g.max()) / self.tau
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            radius = np.where((a > 0) & (threshold > 0), a / lambertw(a / threshold).real, threshold)
        closest = (1 - radius**2 / 2 / _SAFETY - 2 * self.error).astype(np.float32)
        near = cosines >= closest[:, None]
        number = np.count_nonzero(near)
        if number > _USELESS * near.size:
            self.left += number
            product = torch.mm(self.u_q, u_block.T).numpy()
            beta = self._largest_beta(product, self.norm_q[:, None], norm_g)
            alpha = np.sqrt((2 - 2 * cosines - 2 * self.error).clip(min=0))
            rows, columns = np.nonzero(introspective(alpha, beta, self.tau) * _SAFETY < threshold[:, None])
        elif number:
            rows, columns = self._few(near, cosines, norm_g, u_block, threshold, buffer)
        if number and len(rows):
            self._merge(rows, start + columns)

    def _few(
        self,
        near: np.ndarray,
        cosines: np.ndarray,
        norm_g: np.ndarray,
        u_block: torch.Tensor,
        threshold: np.ndarray,
        buffer: torch.Tensor,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the pairs that are `near`, the few whose D may lie below the threshold, as rows and columns."""
        pairs = np.flatnonzero(near)
        rows, columns = np.divmod(pairs, len(u_block))
        alpha = np.sqrt((2 - 2 * cosines.ravel()[pairs] - 2 * self.error).clip(min=0))
        x, y = self.norm_q[rows], norm_g[columns]
        keep = np.flatnonzero(introspective(alpha, x + y, self.tau) * _SAFETY < threshold[rows])
        self.left += len(keep)
        if len(keep) > _DENSE * near.size:
            product = torch.mm(self.u_q, u_block.T, out=buffer).numpy().ravel()[pairs[keep]]
            beta = self._largest_beta(product, x[keep], y[keep])
            keep = keep[introspective(alpha[keep], beta, self.tau) * _SAFETY < threshold[rows[keep]]]
        return rows[keep], columns[keep]

    def _largest_beta(self, product: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """||u_i + u_j|| from the float32 product of u_i and u_j and their norms, never too small."""
        return np.sqrt((x**2 + y**2 + 2 * product + 2 * self.error_u * (x + y) ** 2).clip(min=0))

    def _merge(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Put pairs among the best `k` of their queries."""
        self.exact += len(rows)
        number = len(self.q)
        all_rows = np.concatenate([np.repeat(np.arange(number), self.k), rows])
        all_squares = np.concatenate([self.squares.ravel(), self._exact(rows, positions)])
        all_positions = np.concatenate([self.positions.ravel(), positions])
        order = np.lexsort((all_positions, all_squares, all_rows))
        best = order[np.searchsorted(all_rows[order], np.arange(number))[:, None] + np.arange(self.k)]
        self.squares, self.positions = all_squares[best], all_positions[best]

    def _exact(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        q, u_q, g, u_g = (tensor.numpy() for tensor in (self.q, self.u_q, self.g, self.u_g))
        return squared_distances(q, u_q, g, u_g, rows, positions, self.tau)


__all__ = ["IntrospectiveMatches", "nearest_introspective"]
