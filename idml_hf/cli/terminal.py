"""What the terminal shows: results on the standard output; remarks, progress and errors beside it."""

from __future__ import annotations

import errno
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
    logging.disable_progress_bar()  # of loading weights, which takes no time


def remark(text: str) -> None:
    """Say what was done, beside the results; nothing under `--quiet`."""
    typer.echo(text, err=True)


def report_metrics(metrics: dict[str, Any], output: Path) -> None:
    """Print metrics, and where the rest is."""
    from .metrics_table import metrics_table, print_table

    print_table(metrics_table(metrics))
    remark(f"Everything is in {output}")


def run_app(app: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run an application. An error that names its cause is printed as one line, without a traceback."""
    # Threads that spin while they wait make small models twenty times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(arguments)
    except (ValueError, OSError, FloatingPointError, ImportError, MemoryError, RuntimeError) as error:
        if os.environ.get("IDML_HF_TRACEBACK") or not _is_foreseen(error):
            raise
        _end_progress()
        typer.secho(f"error: {_in_words(error)}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _end_progress() -> None:
    """End the bars that the error has left in the middle of their line."""
    tqdm = sys.modules.get("tqdm")
    for bar in list(getattr(getattr(tqdm, "tqdm", None), "_instances", ())):
        bar.close()


def _is_foreseen(error: Exception) -> bool:
    """Whether an error says all there is to say: runtime errors do where this package raises them, and some others."""
    if not isinstance(error, RuntimeError) or _is_out_of_memory(error) or "DataLoader worker" in str(error):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    return str(where).startswith("idml_hf.")


def _is_out_of_memory(error: Exception) -> bool:
    # torch's own class, without importing torch to look at it
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _in_words(error: Exception) -> str:
    first = (str(error) or "no more can be had").splitlines()[0]
    if _is_out_of_memory(error):
        return f"out of memory ({first}): take a smaller batch"
    if "DataLoader worker" in str(error):
        return f"a process that decodes images died ({first}): take fewer --workers"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: {error.filename or error}"
    return str(error)


__all__ = ["quiet", "remark", "report_metrics", "run_app"]
