"""`idml-hf info`."""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import quiet

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf info my-index")
def info(
    place: Annotated[str, typer.Argument(metavar="INDEX|MODEL", help="Folder or Hub id of an index or a model")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
) -> None:
    """Say what an index or a model is: size, classes, model, what the calibration promises, room on the disk."""
    quiet()
    from .description import description, description_tables

    known = description(place)
    if json:
        from json import dumps

        typer.echo(dumps(known, indent=2, ensure_ascii=False))
        return
    from .metrics_table import print_table

    for table in description_tables(known):
        print_table(table)


__all__ = ["commands"]
