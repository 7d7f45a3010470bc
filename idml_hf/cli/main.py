"""The commands of `idml-hf`, a file each; they read options, call the library and print.

Heavy imports wait until a command is called, so that `--help` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    add,
    audit,
    browse,
    data,
    demo,
    duplicates,
    embed,
    evaluate,
    features,
    hub,
    index,
    info,
    recipes,
    remove,
    search,
    train,
    tune,
)
from .command import Command
from .terminal import run_app

app = typer.Typer(
    name="idml-hf",
    help="Image embeddings that know when they may be wrong: train, evaluate, index, search, share.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for group in (
    train,
    features,
    tune,
    evaluate,
    embed,
    index,
    search,
    add,
    remove,
    duplicates,
    audit,
    info,
    browse,
    demo,
    hub,
):
    app.add_typer(group.commands)
app.add_typer(data.commands, name="data")
app.add_typer(recipes.commands, name="recipes")
for part in app.registered_groups:
    for command in part.typer_instance.registered_commands if part.typer_instance else ():
        command.cls = Command


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"idml-hf {version('idml-hf')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Image embeddings that know when they may be wrong: train, evaluate, index, search, share."""


def main(arguments: list[str] | None = None) -> None:
    """Run `idml-hf`."""
    run_app(app, arguments)


__all__ = ["app", "main", "run_app"]
