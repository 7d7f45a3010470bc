"""What the terminal shows: our words alone, metrics as a table, an error as one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import typer


def quiet() -> None:
    """Keep other libraries' remarks out of the way of ours."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers.utils import logging

    logging.set_verbosity_warning()


def report_metrics(metrics: dict[str, Any], output: Path) -> None:
    """Print metrics, and where the rest is."""
    from .metrics_table import metrics_table, print_table

    print_table(metrics_table(metrics))
    typer.echo(f"Everything is in {output}")


def run_app(app: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run an application. An error that names its cause is printed as one line, without a traceback."""
    # Threads that spin while they wait make small models twenty times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(arguments)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if os.environ.get("IDML_HF_TRACEBACK"):
            raise
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


__all__ = ["quiet", "report_metrics", "run_app"]
