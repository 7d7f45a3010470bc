"""`idml-hf demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import Output
from .terminal import quiet, report_metrics

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf demo --output demo")
def demo(
    output: Output,
    weights: Annotated[Path | None, typer.Option(help="Local trunk weights in timm's naming")] = None,
) -> None:
    """The whole product on real pictures in minutes: train, evaluate, save, reload, search."""
    quiet()
    from .demonstration import run_demo

    report_metrics(run_demo(output, weights), output)


__all__ = ["commands"]
