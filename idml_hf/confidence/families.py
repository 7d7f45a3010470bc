"""Families of classes that look alike: the units of chance.

Mistakes do not come one by one. If two classes look alike, the queries of both are mistaken for each other, and the
two are met together or not at all. So neither queries nor classes are independent draws, but families of such classes
are nearly so.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

LEAST_SHARE = 0.25
"""Share of a class's queries that are taken for one other class, from which on the two are of one family."""


def families(classes: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The family of each query.

    Each class is joined to the one other class that its queries are most taken for, if that is a quarter of those that
    are taken for others, and two at least; families are what is connected.

    Args:
        classes: int (M,), class of each query.
        answers: int (M,), class that it was taken for; with its own class left out of the gallery, say.

    Returns:
        int64 (M,), numbers from 0.

    Example:
        >>> classes, answers = np.array([1, 1, 2, 3, 3, 4]), np.array([2, 2, 1, 4, 4, 4])
        >>> families(classes, answers).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    names, codes = np.unique(np.concatenate([classes, answers]), return_inverse=True)
    own, other = codes.reshape(2, -1)
    taken, size = own != other, len(names)
    counts = coo_matrix((np.ones(int(taken.sum())), (own[taken], other[taken])), shape=(size, size)).tocsr()
    best = np.asarray(counts.argmax(axis=1)).ravel()
    most = counts.max(axis=1).toarray().ravel()
    joined = np.flatnonzero((most >= 2) & (most >= LEAST_SHARE * np.asarray(counts.sum(axis=1)).ravel()))
    links = coo_matrix((np.ones(len(joined)), (joined, best[joined])), shape=(size, size))
    number = connected_components(links, directed=False)[1][own]
    return np.unique(number, return_inverse=True)[1].reshape(-1)


__all__ = ["LEAST_SHARE", "families"]
