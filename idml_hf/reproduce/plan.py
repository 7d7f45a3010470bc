"""From a table to its runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from idml_hf.errors import one_of
from idml_hf.training.effective import effective_settings, portable_settings
from idml_hf.training.recipes import load_recipe
from idml_hf.training.settings import Run

from .results import Result, read_results
from .tables import METHODS, PLAIN, Row, Table


@dataclass(frozen=True)
class PlannedRun:
    """A run of a table.

    Args:
        table: Name of the table.
        row: Name of the row.
        run: The settings.
        result: Its result, if it was made.
    """

    table: str
    row: str
    run: Run
    result: Result | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """As that of its result."""
        return self.row, str(self.run.method), self.run.seed

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return self.result is not None

    @property
    def name(self) -> str:
        """What to call it in words."""
        return f"{self.row} ({self.run.method}), seed {self.run.seed}"


def settings_of(table: Table, row: Row, recipes: Path, method: str | None = None) -> dict[str, Any]:
    """The settings of a row: those of its recipes, and its own.

    Args:
        table: The table.
        row: The row.
        recipes: Folder of the recipes.
        method: That of the rows that are compared with plain ones; None means the table's.
    """
    own = PLAIN if row.against is None else method or table.method
    settings = load_recipe(*(recipes / part for part in row.recipes))
    return {"method": own, "task": table.task} | settings | dict(row.settings)


def plan(
    table: Table,
    seeds: Iterable[int],
    recipes: Path,
    results: Path,
    runs: Path,
    rows: Iterable[str] = (),
    local: Mapping[str, Any] | None = None,
    method: str | None = None,
) -> list[PlannedRun]:
    """The runs of a table, seed by seed, so that pairs are complete early.

    Args:
        table: The table.
        seeds: The seeds.
        recipes: Folder of the recipes.
        results: Folder of the results.
        runs: Folder for what the runs write: models, checkpoints.
        rows: Names of the rows wanted; none means all.
        local: Fields of the run that depend on this machine: `root`, `weights`, `workers`, ...
        method: As for [`settings_of`].

    Raises:
        ValueError: for an unknown row or method, or a recipe that does not fit.
    """
    if method is not None:
        one_of("method", method, METHODS)
    names = [row.name for row in table.rows]
    wanted = {one_of(f"row of table {table.name}", name, names) for name in rows} or set(names)
    at_hand = {result.key: result for result in read_results(results, table.name)}
    planned = []
    for seed in seeds:
        for row in table.rows:
            if row.name not in wanted or (row.against is not None and (method or table.method) in row.lacks):
                continue
            settings = settings_of(table, row, recipes, method) | dict(local or {})
            folder = runs / table.name / _slug(row.name, settings["method"], table, seed)
            run = Run(**(settings | {"seed": seed, "output": str(folder)}))
            made = PlannedRun(table.name, row.name, run)
            planned.append(replace(made, result=at_hand.get(made.key)))
    return planned


def _slug(row: str, method: str, table: Table, seed: int) -> str:
    words = row if method in (PLAIN, table.method) else f"{row}-{method}"
    return f"{re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')}-seed{seed}"


def changed_settings(planned: PlannedRun, ignored: Collection[str] = ()) -> str:
    """How the settings of a result at hand differ from those planned, in words; empty if they do not.

    Args:
        planned: A run that was made.
        ignored: Settings that may differ.
    """
    assert planned.result is not None
    run = planned.run
    # a setting that the result does not name, or leaves open, had its default
    bare = Run(output=run.output, task=run.task, method=run.method, dataset=run.dataset, loss=run.loss)
    defaults = effective_settings(bare)
    then = defaults | {k: v for k, v in planned.result.settings.items() if v is not None}
    now = portable_settings(effective_settings(run))
    ignored = {*ignored, *({"method"} - set(planned.result.settings))}
    if "budget" not in (then["uncertainty_activation"], now["uncertainty_activation"]):
        ignored.add("uncertainty_level")
    keys = [key for key in now if key not in ignored and (then.get(key) or None) != (now[key] or None)]
    return ", ".join(f"{key} was {then.get(key)!r}, is {now[key]!r}" for key in keys)


def planned_settings(planned: PlannedRun) -> dict[str, Any]:
    """The settings that a result of this run keeps."""
    return portable_settings(effective_settings(planned.run))


__all__ = ["PlannedRun", "changed_settings", "plan", "planned_settings", "settings_of"]
