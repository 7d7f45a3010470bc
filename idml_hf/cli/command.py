"""What all commands have in common."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """A command that also takes `--quiet`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _silent() if ctx.params.pop("quiet", False) else contextlib.nullcontext():
            return super().invoke(ctx)


def _common_options() -> list[Any]:
    """Made by typer, whose options are made in another way in each of its versions."""
    app = typer.Typer(add_completion=False)
    app.command()(_common)
    return list(typer.main.get_command(app).params)


def _common(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print results and errors only: no progress, no remarks, no warnings")
    ] = False,
) -> None:
    """The options that all commands take."""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Throw away what goes to the standard error; what is raised is printed later."""
    logging.disable(logging.WARNING)  # some handlers hold the standard error of earlier
    try:
        with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stderr(nothing):
            yield
    finally:
        logging.disable(logging.NOTSET)


__all__ = ["Command"]
