"""Rows, ids, labels and counts as they come from users, checked and in the form that the searches take."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PART = 2**14  # rows checked at a time, so that no float64 copy of a matrix is made
_SMALLEST = 2.0**-100  # norm from which on float32 keeps all digits


def as_numbers(values: Any, name: str) -> np.ndarray:
    """`values` as a real NumPy array of native byte order, without a copy where it is one.

    Tensors may be of any type, on any device, and part of a graph; arrays may be views of any strides.

    Raises:
        ValueError: naming the array, if it holds anything but real numbers or is masked.

    Example:
        >>> as_numbers([[1, 2], [3, 4]], "rows").dtype
        dtype('float32')
    """
    array = as_array(values, name)
    if array.dtype.kind in "biu":
        array = array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32)
        # float32 holds integers of up to 24 bits, so most matrices of integers lose nothing by it
        return array.astype(np.float32) if np.abs(array).max(initial=0) < 2**24 else array
    if array.dtype.kind != "f":
        raise ValueError(f"{name} must be numbers, got {_kind(array)}")
    if array.dtype.itemsize > 8:  # torch and faiss know no longer floats
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def number_rows(values: Any, name: str, number: int | None = None) -> np.ndarray:
    """`values` as a float matrix (N, d) of native byte order, N may be 0; not copied if it is one.

    Raises:
        ValueError: naming the array, if it is anything else, or has not `number` rows.
    """
    matrix = as_numbers(values, name)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or (number is not None and len(matrix) != number):
        raise ValueError(
            f"{name} must be a matrix{'' if number is None else f' of {number} rows'}; got {matrix.shape}"
        )
    return matrix


def finite_rows(values: Any, name: str, number: int | None = None) -> np.ndarray:
    """`values` as a finite float32 matrix, not copied if it is one.

    Args:
        values: numbers (N, d).
        name: what to call them in an error.
        number: how many rows there must be.

    Raises:
        ValueError: naming the first row at fault.
    """
    matrix = number_rows(values, name, number)
    result = np.ascontiguousarray(matrix, dtype=np.float32) if matrix.dtype == np.float32 else None
    if result is None:
        result = np.empty(matrix.shape, dtype=np.float32)
    for start in range(0, len(matrix), _PART):
        part = matrix[start : start + _PART]
        _refuse_infinite(part, name, start)
        if matrix.dtype != np.float32:
            with np.errstate(over="ignore"):
                result[start : start + _PART] = part
            _refuse_infinite(result[start : start + _PART], name, start)
    return result


def unit_rows(values: Any, name: str) -> np.ndarray:
    """`values` as a float32 matrix of rows of norm 1, not copied if it is one.

    Only the direction of a row counts, so rows of any size that is not 0 are taken.

    Raises:
        ValueError: naming the first row that is not finite or has no direction.

    Example:
        >>> unit_rows([[3e-200, 4e-200]], "rows")
        array([[0.6, 0.8]], dtype=float32)
    """
    matrix = number_rows(values, name)
    if matrix.dtype == np.float32:
        matrix = np.ascontiguousarray(matrix)
    result: np.ndarray | None = None
    for start in range(0, len(matrix), _PART):
        part = matrix[start : start + _PART]
        _refuse_infinite(part, name, start)
        with np.errstate(over="ignore", under="ignore"):
            rows = part.astype(np.float32, copy=False)
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        extreme = ~((norms > _SMALLEST) & (norms < np.inf))
        if extreme.any():
            rows, norms = _of_ordinary_size(part, extreme, name, start)
        elif result is None and matrix.dtype == np.float32 and np.abs(norms - 1).max() <= 1e-6:
            continue
        if result is None:
            result = np.empty(matrix.shape, dtype=np.float32)
            result[:start] = matrix[:start]
        result[start : start + _PART] = rows / norms[:, None]
    if result is not None:
        return result
    return matrix if matrix.dtype == np.float32 else matrix.astype(np.float32)


def as_integers(values: Any, name: str, number: int | None = None) -> np.ndarray:
    """`values` as an int64 vector; nothing but integers is taken, so that none is cut or turned into another.

    Args:
        values: integers (N,), or one.
        name: what to call them in an error.
        number: how many there must be.

    Raises:
        ValueError: naming the array, if it holds anything else, or integers beyond 64 bits with a sign.

    Example:
        >>> as_integers([3, 1], "ids")
        array([3, 1])
        >>> as_integers([3.5, 1], "ids")
        Traceback (most recent call last):
        ValueError: ids must be integers, got float64
    """
    array = as_array(values, name)
    expected = "integers" if number is None else f"{number} integers, one an embedding"
    if array.size == 0 and array.dtype.kind == "f":  # what NumPy makes of an empty list
        array = array.astype(np.int64)
    if array.dtype.kind == "O" and array.size and all(_is_integer(value) for value in array.flat):
        array = np.array(array.tolist())  # as those of a data frame are
        if array.dtype.kind == "O":
            raise ValueError(f"{name} must be {expected} of at most 64 bits with a sign")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be {expected}, got {_kind(array)}")
    if array.ndim > 1 or (number is not None and array.shape != (number,)):
        raise ValueError(f"{name} must be {expected}; got {array.shape}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be {expected} of at most 64 bits with a sign, got {array.max()}")
    return array.reshape(-1).astype(np.int64)


def as_count(value: Any, name: str, least: int = 1) -> int:
    """`value` as an int of at least `least`: Python's, NumPy's or torch's.

    Raises:
        ValueError: naming the argument.

    Example:
        >>> as_count(np.int64(3), "k")
        3
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return count


def as_positive(value: Any, name: str) -> float:
    """`value` as a finite float above 0.

    Raises:
        ValueError: naming the argument.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number above 0, got {value!r}") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0, got {number}")
    return number


def as_share(value: Any, name: str, *, least: float | None = None) -> float:
    """`value` as a float between 0 and 1, both left out; `least=0` lets 0 in.

    Raises:
        ValueError: naming the argument.

    Example:
        >>> as_share("much", "absent")
        Traceback (most recent call last):
        ValueError: absent must be a number between 0 and 1, got 'much'
    """
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number between 0 and 1, got {value!r}") from None
    if not (0 < number < 1 or number == least):
        raise ValueError(
            f"{name} must be {'between 0 and 1' if least is None else 'from 0 to below 1'}, got {number:g}"
        )
    return number


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the memory of an array, which may be read-only: it is for reading."""
    if min(array.strides, default=0) < 0:  # torch does not know these
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def as_array(values: Any, name: str) -> np.ndarray:
    """`values` as an array of native byte order: lists, arrays and tensors of any type, device and graph.

    Raises:
        ValueError: naming the array, for rows of different lengths and masked values.
    """
    if isinstance(values, (list, tuple)) and any(isinstance(value, Tensor) for value in values):
        values = [as_array(value, name) for value in values]
    if isinstance(values, Tensor):
        values = values.detach().to_dense().cpu().resolve_conj().resolve_neg()
        narrow = values.dtype.is_floating_point and values.element_size() < 4
        return (values.float() if narrow else values).numpy()  # NumPy has no bfloat16
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values")
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array, got rows of different lengths") from None
    return array.astype(array.dtype.newbyteorder("=")) if array.dtype.byteorder not in "=|" else array


def _refuse_infinite(part: np.ndarray, name: str, start: int) -> None:
    bad = ~np.isfinite(part).all(1)
    if bad.any():
        raise ValueError(f"{name} have NaN or infinite values, first in row {start + int(bad.argmax())}")


def _of_ordinary_size(part: np.ndarray, extreme: np.ndarray, name: str, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose squares can be summed, of the same directions, and their norms."""
    rows = part.astype(np.float64)
    largest = np.abs(rows[extreme]).max(1)
    if (largest == 0).any():
        row = start + int(np.flatnonzero(extreme)[(largest == 0).argmax()])
        raise ValueError(f"{name} have no direction in row {row}: it is all zeros")
    rows[extreme] /= largest[:, None]
    return rows, np.sqrt(np.einsum("nd,nd->n", rows, rows))


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _kind(array: np.ndarray) -> str:
    names = {"U": "strings", "S": "strings", "b": "booleans", "O": "objects", "c": "complex numbers"}
    return names.get(array.dtype.kind, str(array.dtype))


__all__ = [
    "as_array",
    "as_count",
    "as_integers",
    "as_numbers",
    "as_positive",
    "as_tensor",
    "finite_rows",
    "number_rows",
    "unit_rows",
]
