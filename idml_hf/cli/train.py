"""`idml-hf train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from idml_hf.training.recipe import RetrievalRun, load_recipe

from .options import given, options_from
from .terminal import quiet, report_metrics

commands = typer.Typer()


@commands.command(
    epilog="Example: idml-hf train --dataset photos/ --loss proxy_anchor --form ratio --backbone resnet18 "
    "--embedding-dim 128 --image-size 224 --epochs 10 --output my-model"
)
@options_from(RetrievalRun)
def train(
    recipe: Annotated[list[Path] | None, typer.Argument(help="YAML files with the options below as keys")] = None,
    **options: Any,
) -> None:
    """Train a model, or fine-tune one (--model), and evaluate it on classes it has not seen.

    Options on the command line replace those of the recipes, and later recipes those of earlier ones. Output holds
    the model in Hub format, its metrics and a training curve.
    """
    settings = load_recipe(*(recipe or [])) | given(RetrievalRun, options)
    if not settings.get("output"):
        raise typer.BadParameter("give --output, the folder for the model", param_hint="--output")
    run = RetrievalRun(**settings)
    quiet()
    from idml_hf.training.run import train_retrieval

    metrics = train_retrieval(run)
    if os.environ.get("RANK", "0") == "0":
        report_metrics(metrics, Path(run.output))


__all__ = ["commands"]
