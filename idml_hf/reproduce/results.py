"""One JSON file for each run, and a table of all in one CSV file."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """What is kept of a run.

    Args:
        table, row, seed: What it was a run of.
        settings: Fields of the run, without paths of the machine it ran on.
        metrics: Its metrics.
        environment: Versions and machine.
    """

    table: str
    row: str
    seed: int
    settings: dict[str, Any]
    metrics: dict[str, Any]
    environment: dict[str, Any]


def result_path(results: Path, table: str, row: str, seed: int) -> Path:
    """Where the result of a run lies.

    Example:
        >>> result_path(Path("results"), "cub", "IDML-PA", 0).as_posix()
        'results/cub/idml-pa-seed0.json'
    """
    return results / table / f"{re.sub(r'[^a-z0-9]+', '-', row.lower()).strip('-')}-seed{seed}.json"


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_result(path: Path, result: Result) -> None:
    """Write a run's file."""
    write_atomically(path, json.dumps(result.__dict__, indent=2, allow_nan=False) + "\n")


def read_result(path: Path) -> Result:
    """Read a run's file.

    Raises:
        ValueError: if it is not one.
    """
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not the result of a run: {error}") from error


def write_csv(path: Path, results: list[Result]) -> None:
    """Write a line for each run: its row, its metrics, and the seed among them."""
    columns = list(dict.fromkeys(key for result in results for key in ("row", "seed", *result.metrics)))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerow(result.metrics | {"row": result.row, "seed": result.seed})
    write_atomically(path, text.getvalue())


__all__ = ["Result", "read_result", "result_path", "write_atomically", "write_csv", "write_result"]
