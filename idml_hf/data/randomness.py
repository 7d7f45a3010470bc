"""Randomness as a function of where in the training run it is drawn, so that a resumed run repeats it bit for bit."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*numbers: int) -> int:
    """Mix integers into one 63-bit seed; the same on every machine, process and Python version.

    Args:
        *numbers: any integers that fit in 64 signed bits, e.g. `(seed, epoch, index)`. Order matters.

    Example:
        >>> derive_seed(0, 1, 2) == derive_seed(0, 1, 2), derive_seed(0, 1, 2) == derive_seed(0, 2, 1)
        (True, False)
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
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
