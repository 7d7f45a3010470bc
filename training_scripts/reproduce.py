"""Make a table of the paper, or of ours: all rows, all seeds, going on where an earlier call stopped.

python training_scripts/reproduce.py --table cub --root /data/cub --dry-run
accelerate launch training_scripts/reproduce.py --table sop
python training_scripts/reproduce.py --table fashion-mnist --report
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idml_hf.cli.terminal import run_app
from idml_hf.reproduce.command import reproduce
from idml_hf.reproduce.tables import METHODS, TABLES
from idml_hf.training.recipes import PACKAGED

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    table: Annotated[str, typer.Option(help=", ".join(TABLES))],
    root: Annotated[Path | None, typer.Option(help="Where the data set lies on disk")] = None,
    method: Annotated[
        str | None, typer.Option(help=f"{', '.join(METHODS)}: what is compared with the plain losses")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Local trunk weights in timm's naming")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds; unset: the table's own", min=1)] = None,
    row: Annotated[list[str] | None, typer.Option(help="Only this row; can be given several times")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and about how long they take")] = False,
    report: Annotated[bool, typer.Option("--report", help="Print the table from the results at hand")] = False,
    jobs: Annotated[int, typer.Option(help="Runs at a time, each on a GPU of its own", min=1)] = 1,
    results: Annotated[Path, typer.Option(help="Folder of the results, a file a table")] = Path("results"),
    runs: Annotated[Path, typer.Option(help="Folder for models and checkpoints")] = Path("runs"),
    workers: Annotated[int | None, typer.Option(help="Processes that decode images, for each run", min=0)] = None,
) -> None:
    """Make the runs of a table that are missing, and print it beside the paper's numbers."""
    reproduce(
        table,
        PACKAGED,
        root=root,
        weights=weights,
        seeds=seeds,
        rows=tuple(row or ()),
        dry_run=dry_run,
        report=report,
        jobs=jobs,
        results=results,
        runs=runs,
        workers=workers,
        method=method,
    )


if __name__ == "__main__":
    run_app(app)
