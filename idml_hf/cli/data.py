"""`idml-hf data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import Root
from .terminal import quiet

commands = typer.Typer(help="Look after data sets.", no_args_is_help=True)


@commands.command("list", epilog="Example: idml-hf data list")
def list_data(json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text")] = False) -> None:
    """Show the data sets known by name: how large they are, how to get them, and under which terms."""
    from .data_list import data_list, data_text

    if json:
        from json import dumps

        typer.echo(dumps(data_list(), indent=2))
    else:
        typer.echo(data_text(data_list()))


@commands.command(epilog="Example: idml-hf data check cub --root CUB_200_2011 --output cub-check")
def check(
    dataset: Annotated[str, typer.Argument(help="Name, folder, or Hub id of a data set")],
    root: Root = None,
    output: Annotated[Path | None, typer.Option(help="Folder for report.json and a contact sheet")] = None,
) -> None:
    """Verify counts, classes, unreadable images and duplicates between train and test; exits with 1 on a problem."""
    quiet()
    from idml_hf.data import check_dataset

    report = check_dataset(dataset, root)
    typer.echo(report.describe())
    if output is not None:
        from idml_hf.files import replacing, write_json

        with replacing(output / "contact_sheet.png") as part:
            report.contact_sheet.save(part)
        write_json(output / "report.json", report.to_dict())
    if not report.ok:
        raise typer.Exit(1)


__all__ = ["commands"]
