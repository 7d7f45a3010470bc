"""`idml-hf train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from idml_hf.processes import is_first_process
from idml_hf.training.settings import DataSettings, ModelSettings, Run, TrainingSettings

from .options import given, options_from
from .terminal import quiet, report_metrics

commands = typer.Typer()


@commands.command(
    epilog="Example: idml-hf train --dataset photos/ --loss proxy_anchor --form ratio --backbone resnet18 "
    "--embedding-dim 128 --image-size 224 --epochs 10 --output my-model",
)
@options_from(Run, {"Model": ModelSettings, "Data": DataSettings, "Training": TrainingSettings})
def train(
    recipe: Annotated[
        list[Path] | None,
        typer.Argument(help="YAML files with the options below as keys, or names of recipes, as paper/cub"),
    ] = None,
    **options: Any,
) -> None:
    """Train a model, or fine-tune one (--model), and evaluate it on classes it has not seen.

    With --task classification, train an image classifier, and evaluate it on other images of the same classes.
    Options on the command line replace those of the recipes, and later recipes those of earlier ones. Output holds
    the model in Hub format, its metrics and a training curve. What is not set is the method's or the model's;
    run.json in the output tells it.
    """
    from idml_hf.training.recipes import load_recipe

    settings = load_recipe(*(recipe or [])) | given(Run, options)
    if not settings.get("output"):
        raise typer.BadParameter("give --output, the folder for the model", param_hint="--output")
    run = Run(**settings)
    quiet()
    from idml_hf.training.run import train as train_model

    metrics = train_model(run)
    if is_first_process():
        report_metrics(metrics, Path(run.output))


__all__ = ["commands"]
