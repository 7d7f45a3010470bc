"""Train an introspective image classifier; every option can also stand in a recipe.

python training_scripts/train_classification.py training_scripts/recipes/fashion-mnist.yaml --output my-classifier
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from idml_hf.cli.main import run_app
from idml_hf.cli.metrics_table import metrics_table, print_table
from idml_hf.cli.options import given, options_from
from idml_hf.training.classification_recipe import ClassificationRun
from idml_hf.training.recipe import load_recipe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@options_from(ClassificationRun)
def main(
    recipe: Annotated[
        list[Path] | None, typer.Argument(help="YAML files with any of the options below as keys")
    ] = None,
    **options: Any,
) -> None:
    """Train a classifier and evaluate it on the test images.

    Options on the command line replace those of the recipes.
    """
    settings = load_recipe(*(recipe or []), settings=ClassificationRun) | given(ClassificationRun, options)
    for required in ("output", "dataset"):
        if not settings.get(required):
            raise typer.BadParameter("it is missing, here and in the recipes", param_hint=f"--{required}")
    run = ClassificationRun(**settings)
    from idml_hf.training.classification_run import train_classification

    metrics = train_classification(run)
    if os.environ.get("RANK", "0") == "0":
        print_table(metrics_table(metrics))


if __name__ == "__main__":
    run_app(app)
