"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATASET = typer.Option(help="Name, folder (class folders or train/test.parquet), or Hub id")
Dataset = Annotated[str, DATASET]
Root = Annotated[Path | None, typer.Option(help="Where a named data set lies on disk")]
GroupColumn = Annotated[str | None, typer.Option(help="Column of groups whose same-class matches do not count")]
SkipBad = Annotated[bool, typer.Option("--skip-bad-images", help="Go on without the images that cannot be read")]
Output = Annotated[Path, typer.Option(help="Folder to write")]
Model = Annotated[str, typer.Argument(help="Folder or Hub id of an IDML model")]
Index = Annotated[Path, typer.Argument(help="Folder that `idml-hf index` wrote")]
BatchSize = Annotated[int, typer.Option(help="Images at a time", min=1)]
Workers = Annotated[int, typer.Option(help="Processes that decode images", min=0)]

__all__ = ["DATASET", "BatchSize", "Dataset", "GroupColumn", "Index", "Model", "Output", "Root", "SkipBad", "Workers"]
