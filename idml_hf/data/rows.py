"""A matrix in files, larger than memory if need be, of which rows are read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_ROWS = 2**14


class RowFiles:
    """The rows of several `.npy` files as one matrix `(N, width)`, or some of these rows.

    Indexed by a slice or by integers, it gives an array. Nothing of the files stays in memory, nor mapped into it.

    Args:
        files: Matrices of floats with the same number of columns, one below the other.
        at: Which rows, int64; all by default.
        keep: What has to live as long as the rows do, as a temporary file.

    Raises:
        FileNotFoundError: naming a file that is not there.
        ValueError: naming a file that is no such matrix.

    Example:
        >>> np.save("vectors.npy", np.arange(6.0).reshape(3, 2))
        >>> rows = RowFiles(["vectors.npy"])
        >>> rows.shape, rows[1:].tolist(), rows.select([2, 0])[:1].tolist()
        ((3, 2), [[2.0, 3.0], [4.0, 5.0]], [[4.0, 5.0]])
    """

    def __init__(self, files: Sequence[str | Path], at: Any = None, keep: Any = None) -> None:
        self.files = tuple(Path(file) for file in files)
        shapes = [_matrix(file).shape for file in self.files]
        for file, shape in zip(self.files, shapes, strict=True):
            if shape[1] != shapes[0][1]:
                raise ValueError(f"{file} has {shape[1]} columns, {self.files[0]} has {shapes[0][1]}")
        self.starts = np.cumsum([0, *(rows for rows, _ in shapes)])
        self.width = shapes[0][1]
        self.at = None if at is None else np.asarray(at, dtype=np.int64)
        self.keep = keep

    def __len__(self) -> int:
        return int(self.starts[-1]) if self.at is None else len(self.at)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return len(self), self.width

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, slice) and self.at is None:
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
        rows = np.arange(len(self))[key] if self.at is None else self.at[key]
        return self._at(rows)

    def select(self, rows: Any) -> RowFiles:
        """The matrix of some of the rows: integers, or a mask of length N."""
        rows = np.arange(len(self))[np.asarray(rows)]
        chosen = object.__new__(type(self))
        chosen.__dict__ |= self.__dict__ | {"at": rows if self.at is None else self.at[rows]}
        return chosen

    def _between(self, start: int, stop: int) -> np.ndarray:
        # none of the rows, so that there is something to join where none is asked for
        parts = [np.array(_matrix(self.files[0])[:0])]
        for file, first, end in zip(self.files, self.starts[:-1], self.starts[1:], strict=True):
            if start < end and stop > first:
                # copied, for what stays mapped counts as memory of the process
                parts.append(np.array(_matrix(file)[max(0, start - first) : stop - first]))
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def _at(self, rows: np.ndarray) -> np.ndarray:
        of = np.searchsorted(self.starts, rows, side="right") - 1
        out: np.ndarray | None = None
        for number in np.unique(of):
            chosen = of == number
            part = _matrix(self.files[number])[rows[chosen] - self.starts[number]]
            out = np.empty((len(rows), self.width), part.dtype) if out is None else out
            out[chosen] = part
        return np.empty((0, self.width), np.float32) if out is None else out


def row_blocks(matrix: Any, rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
    """The rows of a matrix in blocks, each as float32."""
    for start in range(0, len(matrix), rows):
        yield np.asarray(matrix[start : start + rows], dtype=np.float32)


def _matrix(file: Path) -> np.ndarray:
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {file}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{file} is no matrix that NumPy saved: {error}") from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.shape[1]:
        found = f"{matrix.dtype} {matrix.shape}" if isinstance(matrix, np.ndarray) else "several arrays"
        raise ValueError(f"{file} must hold one matrix of floats, a row an image; it holds {found}")
    return matrix


__all__ = ["BLOCK_ROWS", "RowFiles", "row_blocks"]
