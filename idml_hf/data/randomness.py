"""One scheme of random numbers: each is a function of where in the run it is drawn, so a resumed run repeats them all.

A place is a few integers, such as (seed, epoch, position, index). `derive_seed` mixes them into one seed, from which
`seeded` feeds torch's own generator, and `uniform` a whole batch, an image a row, on any device. `generator` gives
NumPy's generator for a place.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*place: int) -> int:
    """Mix integers into one 63-bit seed; the same on every machine, process and Python version.

    Args:
        *place: any integers that fit in 64 signed bits, e.g. `(seed, epoch, index)`. Order matters.

    Example:
        >>> derive_seed(0, 1, 2) == derive_seed(0, 1, 2), derive_seed(0, 1, 2) == derive_seed(0, 2, 1)
        (True, False)
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(place)}q", *place), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, `torch`'s CPU generator and `random` draw from `seed`; afterwards both go on as if unused.

    Example:
        >>> with seeded(3):
        ...     a = torch.rand(1)
        >>> with seeded(3):
        ...     bool(a == torch.rand(1))
        True
    """
    torch_state, python_state = torch.default_generator.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(torch_state)
        random.setstate(python_state)


def generator(*place: int | str) -> np.random.Generator:
    """NumPy's generator for a place of non-negative integers and words, e.g. `(seed, index, "blur")`.

    Example:
        >>> bool(generator(0, 7, "blur").random() == generator(0, 7, "blur").random())
        True
    """
    numbers: list[int] = []
    for part in place:
        # the bytes of a word, because hash() of a string differs between processes
        numbers += part.encode() if isinstance(part, str) else [part]
    return np.random.default_rng(numbers)


def uniform(seeds: np.ndarray, number: int) -> np.ndarray:
    """`number` values in [0, 1) for each seed: float64 (B, number). SplitMix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, number + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = seeds.astype(np.int64).view(np.uint64)[:, None] + steps
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
