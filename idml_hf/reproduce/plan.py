"""From a table to its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from idml_hf.errors import one_of
from idml_hf.training.classification_recipe import ClassificationRun
from idml_hf.training.recipe import RetrievalRun, TrainingRun, load_recipe

from .results import read_result, result_path
from .tables import Row, Table

# what may differ from machine to machine without making it another experiment
LOCAL = frozenset({"output", "root", "workers", "save_steps", "resume", "overwrite", "compile"})


@dataclass(frozen=True)
class PlannedRun:
    """A run of a table.

    Args:
        table: Name of the table.
        row: Name of the row.
        run: The settings.
        result: Where its result will lie, or lies.
    """

    table: str
    row: str
    run: TrainingRun
    result: Path

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return self.result.exists()


def settings_of(row: Row, task: str, recipes: Path) -> dict[str, Any]:
    """The settings of a row: those of its recipes, and its own."""
    kind = RetrievalRun if task == "retrieval" else ClassificationRun
    return load_recipe(*(recipes / part for part in row.recipes), settings=kind) | dict(row.settings)


def plan(
    table: Table,
    seeds: Iterable[int],
    recipes: Path,
    results: Path,
    runs: Path,
    rows: Iterable[str] = (),
    local: Mapping[str, Any] | None = None,
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

    Raises:
        ValueError: for an unknown row, or a recipe that does not fit.
    """
    names = [row.name for row in table.rows]
    wanted = {one_of(f"row of table {table.name}", name, names) for name in rows} or set(names)
    kind = RetrievalRun if table.task == "retrieval" else ClassificationRun
    planned = []
    for seed in seeds:
        for row in table.rows:
            if row.name in wanted:
                path = result_path(results, table.name, row.name, seed)
                given = {"seed": seed, "output": str(runs / table.name / path.stem)}
                run = kind(**(settings_of(row, table.task, recipes) | dict(local or {}) | given))
                planned.append(PlannedRun(table.name, row.name, run, path))
    return planned


def portable_settings(run: TrainingRun) -> dict[str, Any]:
    """The settings that make the experiment: all but those of this machine, and files by their name alone."""
    settings = {key: value for key, value in asdict(run).items() if key not in LOCAL}
    for key in ("weights", "model"):
        if settings.get(key):
            settings[key] = Path(settings[key]).name
    return settings


def changed_settings(planned: PlannedRun) -> str:
    """How the settings of a result at hand differ from those planned, in words; empty if they do not."""
    # a setting that the result does not name was not there to be set
    defaults = {f.name: f.default for f in fields(planned.run) if f.default is not MISSING}
    then, now = defaults | read_result(planned.result).settings, portable_settings(planned.run)
    keys = [key for key in now if then.get(key) != now[key]]
    return ", ".join(f"{key} was {then.get(key)!r}, is {now[key]!r}" for key in keys)


__all__ = ["PlannedRun", "changed_settings", "plan", "portable_settings", "settings_of"]
