"""Several pictures of one thing as one query."""

from __future__ import annotations

import numpy as np

POWER = 0.5
"""How much a picture counts: by the inverse of its uncertainty to this power; 0 is the plain mean. Chosen on held-out
training classes of two data sets."""

_MOST = 4.0  # times the typical uncertainty, from which on pictures count alike


def one_query(
    semantic: np.ndarray, uncertainty_embeds: np.ndarray, typical: float, power: float = POWER
) -> tuple[np.ndarray, np.ndarray]:
    """The embedding of a thing from K pictures of it, `normalise(sum_k s_k u_k^-power)`.

    An uncertainty u_k counts as no less than the typical one, for between good pictures it says little of which is the
    better, and as no more than four times that, for even a bad picture knows something.

    Args:
        semantic: (K, d), unit rows.
        uncertainty_embeds: (K, d_u), whose norms are the u_k.
        typical: uncertainty of an ordinary picture, say the median of the collection; where it is 0, all count alike.
        power: how much certain pictures count more.

    Returns:
        Semantic embedding float32 (1, d), unit norm, and uncertainty embedding float32 (1, d_u), the mean by the same
        weights.

    Raises:
        ValueError: if there is no picture.

    Example:
        >>> s, u = one_query(np.eye(2), np.array([[1.0], [9.0]]), typical=1.0)
        >>> s.round(3).tolist(), u.round(3).tolist()
        ([[0.89..., 0.44...]], [[3.66...]])
    """
    if not len(semantic):
        raise ValueError("there are no pictures to take together")
    uncertainty = np.linalg.norm(uncertainty_embeds, axis=1)
    weight = np.clip(uncertainty / typical, 1, _MOST) ** -power if typical > 0 else np.ones(len(uncertainty))
    weight /= weight.sum()
    joined = weight @ semantic
    length = np.linalg.norm(joined)
    # pictures that contradict each other altogether leave no direction: the most certain one stands for them
    joined = joined / length if length > 1e-6 else semantic[uncertainty.argmin()]
    return joined[None].astype(np.float32), (weight @ uncertainty_embeds)[None].astype(np.float32)


__all__ = ["POWER", "one_query"]
