"""The command line of `training_scripts/reproduce.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from idml_hf.errors import one_of
from idml_hf.processes import is_first_process

from .execute import execute_all
from .plan import PlannedRun, changed_settings, plan
from .report import difference_grid, result_grid
from .results import Result, read_results, results_file, write_csv
from .tables import TABLES, Table


def reproduce(
    table: str,
    recipes: Path,
    *,
    root: Path | None = None,
    weights: Path | None = None,
    seeds: int | None = None,
    rows: tuple[str, ...] = (),
    dry_run: bool = False,
    report: bool = False,
    jobs: int = 1,
    results: Path = Path("results"),
    runs: Path = Path("runs"),
    workers: int | None = None,
    method: str | None = None,
    console: Console | None = None,
) -> list[Result]:
    """Make the runs of a table that are missing, write `results/TABLE.csv`, and print the table.

    Args:
        table: Name of a table of [`idml_hf.reproduce.tables.TABLES`].
        recipes: Folder of the recipes.
        root: Where the data set lies on disk.
        weights: Local file of trunk weights in timm's naming.
        seeds: Number of seeds; None means the table's own.
        rows: Names of the rows wanted; none means all.
        dry_run: Only list the runs, and about how long they will take.
        report: Only print, and write the CSV file, from the results at hand.
        jobs: Runs at a time.
        results: Folder of the results, a file a table: a run whose line is there is not made again.
        runs: Folder for models and checkpoints.
        workers: Processes that decode images, for each run; None means the recipe's number.
        method: Method of the rows that are compared with plain ones; None means the table's.
        console: Where to print.

    Returns:
        The results at hand at the end.

    Raises:
        ValueError: for an unknown table, row or method, a table that needs `root`, or a result that was made
            with other settings.
    """
    console = console or Console()
    chosen = TABLES[one_of("table", table, list(TABLES))]
    if chosen.folder and root is None:
        raise ValueError(f"table {table} needs --root, the folder of its pictures")
    place = {"dataset" if chosen.folder else "root": root and str(root)}
    given = {**place, "weights": weights and str(weights), "workers": workers}
    local = {key: value for key, value in given.items() if value is not None}
    numbers = range(chosen.seeds if seeds is None else seeds)

    def planned_now() -> list[PlannedRun]:
        return plan(chosen, numbers, recipes, results, runs, rows, local, method)

    planned = planned_now()
    # a report need not be told which weights there were
    ignored = ["weights"] if report and weights is None else []
    changed = {run.name: text for run in planned if run.done and (text := changed_settings(run, ignored))}
    if dry_run:
        _print_plan(planned, console)
        return _at_hand(planned)
    if not report:
        for name, text in changed.items():
            raise ValueError(
                f"{results_file(results, table)}: {name} was made with other settings ({text}): "
                "move the file away, or give other --results"
            )
        execute_all(planned, results, jobs)
    at_hand = _at_hand(planned_now())
    if is_first_process():
        for name, text in changed.items():
            console.print(f"[yellow]{name} was made with other settings: {text}[/]")
        _print_report(chosen, at_hand, results, console)
    return at_hand


def _at_hand(planned: list[PlannedRun]) -> list[Result]:
    return [run.result for run in planned if run.result is not None]


def _print_report(table: Table, at_hand: list[Result], results: Path, console: Console) -> None:
    if not at_hand:
        console.print(f"There are no results of table {table.name} yet")
        return
    path = results / f"{table.name}.csv"
    write_csv(path, read_results(results, table.name))
    console.print(result_grid(table, at_hand))
    console.print(difference_grid(table, at_hand))
    console.print(f"A line for each run is in {path}")


def _print_plan(planned: list[PlannedRun], console: Console) -> None:
    from .estimate import images_seen, measured_rate, timed_rate

    missing = [run for run in planned if not run.done]
    rate = measured_rate(_at_hand(planned))
    source = "at the rate of the runs at hand"
    if rate is None and missing:
        rate = timed_rate(missing[0].run)
        source = "at the rate of a few steps timed now, without data loading and evaluation"
    total = 0.0
    for run in planned:
        images: Any = images_seen(run.run)
        hours = images / rate / 3600 if images and rate else 0.0
        total += 0.0 if run.done else hours
        state = "done" if run.done else f"about {_duration(hours)}" if hours else "duration unknown"
        console.print(f"{run.name}: {state}  [dim]{run.run.output}[/]")
    about = f", about {_duration(total)} {source}" if total else ""
    console.print(f"{len(missing)} of {len(planned)} runs to make{about}")


def _duration(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 2 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


__all__ = ["reproduce"]
