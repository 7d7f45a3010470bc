"""The commands of `idml-hf`, a file each; they read options, call the library and print.

Heavy imports wait until a command is called, so that `--help` is quick.
"""

from __future__ import annotations

import typer

from . import data, demo, duplicates, embed, evaluate, features, hub, index, train
from .terminal import run_app

app = typer.Typer(
    name="idml-hf",
    help="Image embeddings that know when they may be wrong: train, evaluate, index, search, share.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for group in (train, features, evaluate, embed, index, duplicates, demo, hub):
    app.add_typer(group.commands)
app.add_typer(data.commands, name="data")


def main(arguments: list[str] | None = None) -> None:
    """Run `idml-hf`."""
    run_app(app, arguments)


__all__ = ["app", "main", "run_app"]
