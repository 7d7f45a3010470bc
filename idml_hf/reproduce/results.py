"""The results of a table: a line of JSON for each run in one file, and the metrics of all in one CSV file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from idml_hf.configuration_idml import method_of_form
from idml_hf.files import write_text


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

    @property
    def method(self) -> str:
        """Name of the method; results of the first edition name the form of the metric alone."""
        return self.settings.get("method") or method_of_form(self.settings.get("form"))

    @property
    def key(self) -> tuple[str, str, int]:
        """Row, method and seed: of two results with the same key the later one counts."""
        return self.row, self.method, self.seed


def results_file(results: Path, table: str) -> Path:
    """Where the results of a table lie.

    Example:
        >>> results_file(Path("results"), "cub").as_posix()
        'results/cub.jsonl'
    """
    return results / f"{table}.jsonl"


def read_results(results: Path, table: str) -> list[Result]:
    """The results of a table, those in a folder of one file a run as well, as the first edition kept them.

    A last line that was not written to its end is left out: that run is made again.

    Raises:
        ValueError: naming the file and the line that is not the result of a run.
    """
    found = {}
    for old in sorted((results / table).glob("*.json")):
        result = _parse(old.read_text(encoding="utf-8"), str(old))
        found[result.key] = result
    path = results_file(results, table)
    if path.is_file():
        lines = path.read_text(encoding="utf-8").split("\n")
        # what follows the last line break was cut off
        for number, line in enumerate(lines[:-1], 1):
            if line.strip():
                result = _parse(line, f"{path}, line {number},")
                found[result.key] = result
    return list(found.values())


def _parse(text: str, where: str) -> Result:
    try:
        return Result(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is not the result of a run: {error}") from error


def append_result(path: Path, result: Result) -> None:
    """Add a run's line to the file of its table, in one step.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
        OSError: if it cannot be written.
    """
    line = json.dumps(asdict(result), allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.is_file() and path.stat().st_size > 0 and _last_byte(path) != b"\n"
    if cut:
        # a line that another call did not finish must not swallow this one
        write_text(path, path.read_text(encoding="utf-8").rpartition("\n")[0] + "\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def write_csv(path: Path, results: Iterable[Result]) -> None:
    """Write a line for each run: its row, method and seed, and its metrics."""
    rows = [{"row": r.row, "method": r.method, "seed": r.seed} | r.metrics for r in results]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


__all__ = ["Result", "append_result", "read_results", "results_file", "write_csv"]
