"""`idml-hf recipes`."""

from __future__ import annotations

from typing import Annotated

import typer

commands = typer.Typer(help="Settings of runs that come with the package.", no_args_is_help=True)


@commands.command("list", epilog="Example: idml-hf recipes list")
def list_recipes() -> None:
    """Print the names of the recipes, which `train` takes as they stand."""
    from idml_hf.training.recipes import packaged_recipes

    for name in packaged_recipes():
        typer.echo(name)


@commands.command(epilog="Example: idml-hf recipes show emoji losses/contrastive")
def show(recipe: Annotated[list[str], typer.Argument(help="Names or files; later ones replace earlier ones")]) -> None:
    """Print what recipes set, with what they are based on, as one YAML file."""
    import yaml

    from idml_hf.training.recipes import load_recipe

    typer.echo(yaml.safe_dump(load_recipe(*recipe), sort_keys=False, allow_unicode=True), nl=False)


__all__ = ["commands"]
