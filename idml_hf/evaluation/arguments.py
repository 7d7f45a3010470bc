"""Embeddings, labels and scores as they come from users, checked; an error names the argument at fault."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idml_hf.search.arrays import as_array, as_numbers

# Rows whose largest value is beyond these are scaled, so that their squares can be summed in any precision.
_LARGEST, _SMALLEST = 2.0**40, 2.0**-20


def as_rows(name: str, values: Any) -> Tensor:
    """`values` as a finite, non-empty `(N, d)` tensor of floats, where it is one already unchanged.

    Raises:
        ValueError: naming the argument and the first row at fault.

    Example:
        >>> as_rows("embeddings", [[1, 2], [3, 4]]).dtype
        torch.float32
    """
    if isinstance(values, Tensor) and values.is_floating_point():
        rows = values.detach()
    else:
        array = as_numbers(values, name)
        # torch takes no memory that runs backwards or must not be written
        usable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
        rows = torch.from_numpy(array if usable else array.copy())
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"{name} must be a non-empty matrix (items, dimensions), got shape {tuple(rows.shape)}")
    bad = ~torch.isfinite(rows).all(1)
    if bad.any():
        raise ValueError(f"{name} has NaN or infinite values, first in row {int(bad.nonzero()[0, 0])}")
    return rows


def as_directions(name: str, rows: Tensor) -> Tensor:
    """Rows of which only the direction counts: those of extreme size are multiplied by a power of two.

    That changes no cosine by a bit, and lets squares be summed in any precision.

    Raises:
        ValueError: naming the argument, for a row of zeros.

    Example:
        >>> as_directions("embeddings", torch.tensor([[3e-30, 4e-30], [1.0, 0.0]])).abs().amax(1) >= 0.5
        tensor([True, True])
    """
    largest = rows.abs().amax(1).double()
    zero = (largest == 0).nonzero()
    if len(zero):
        raise ValueError(f"{name} has no direction in row {int(zero[0, 0])}: it is all zeros")
    if not ((largest > _LARGEST) | (largest < _SMALLEST)).any():
        return rows
    # half of the exponent at a time: a float64 may not hold the power of the whole
    exponent = torch.frexp(largest).exponent[:, None]
    first = torch.div(exponent, 2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(rows.double(), -first), first - exponent)


def as_labels(name: str, values: Any, length: int) -> np.ndarray:
    """`values` as a vector of integers, strings or any other labels that compare.

    Raises:
        ValueError: for another length than that of the items, NaN, or labels that cannot be compared.
    """
    array = as_array(values, name)
    if array.shape != (length,):
        raise ValueError(f"{name} must have one value for each of the {length} items, got shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values")
    if array.dtype.kind == "O" and any(type(value) is not type(array[0]) for value in array):
        raise ValueError(f"{name} mixes types that do not compare")
    if array.dtype.kind == "O" and length:
        try:
            array[0] < array[0]  # noqa: B015 - raises where values have no order
        except TypeError:
            raise ValueError(f"{name} holds {type(array[0]).__name__}, which do not compare") from None
    return array


def as_codes(name: str, query: np.ndarray, gallery: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Labels of queries and gallery as consecutive int64 codes; without a gallery the queries' codes twice.

    Raises:
        ValueError: for labels that cannot be compared.
    """
    arrays = [query] if gallery is None else [query, gallery]
    kinds = {"i" if array.dtype.kind in "iub" else array.dtype.kind for array in arrays}
    if len(kinds) > 1:
        raise ValueError(
            f"{name} and gallery_{name} have types that do not compare: {arrays[0].dtype}, {arrays[1].dtype}"
        )
    if {array.dtype.kind for array in arrays} == {"i", "u"}:
        # NumPy would join these as float64, where labels beyond 2**53 collide.
        arrays = [array.astype(object) for array in arrays]
    codes = torch.from_numpy(np.unique(np.concatenate(arrays), return_inverse=True)[1].reshape(-1).astype(np.int64))
    return codes[: len(query)], codes if gallery is None else codes[len(query) :]


def as_scores(name: str, values: Any, length: int) -> np.ndarray:
    """`values` as a finite float64 vector.

    Raises:
        ValueError: naming it.
    """
    array = as_numbers(values, name)
    if array.shape != (length,):
        raise ValueError(f"{name} must have one value for each of the {length} items, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite values, first at {int(np.argmin(np.isfinite(array)))}")
    return array.astype(np.float64)


def as_ks(name: str, ks: Any) -> list[int]:
    """`ks` as a list of whole numbers of at least 1, without repeats.

    Raises:
        ValueError: naming the argument.

    Example:
        >>> as_ks("ks", (1, np.int64(10), 1))
        [1, 10]
    """
    try:
        numbers = [operator.index(k) for k in ks]
    except TypeError:
        raise ValueError(f"{name} must be whole numbers of at least 1, got {ks!r}") from None
    if any(k < 1 for k in numbers):
        raise ValueError(f"{name} must be whole numbers of at least 1, got {ks!r}")
    return list(dict.fromkeys(numbers))


def as_device(device: Any) -> torch.device | None:
    """`device` as torch knows it.

    Raises:
        ValueError: if there is no such kind of device.
    """
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is none that torch knows: {str(error).splitlines()[0]}") from None


__all__ = [
    "as_codes",
    "as_device",
    "as_directions",
    "as_ks",
    "as_labels",
    "as_rows",
    "as_scores",
]
