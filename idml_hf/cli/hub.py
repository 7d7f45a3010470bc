"""`idml-hf push` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import Model, Output
from .terminal import quiet, remark

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf push my-model org/my-model --private")
def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `idml-hf train`, `demo` or `index` wrote")],
    repo: Annotated[str, typer.Argument(help="Repository on the Hub: ORG/NAME")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private")] = False,
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Add the code that loads the model where idml_hf is not installed")
    ] = False,
    with_index: Annotated[bool, typer.Option("--with-index", help="Add the search index in FOLDER/index")] = False,
    space: Annotated[bool, typer.Option("--space", help="Push an index as a page that searches it")] = False,
) -> None:
    """Push a model to the Hub with its model card, results and plots, in one commit; or an index, as a data set."""
    quiet()
    from idml_hf.index_files import MANIFEST

    if space or (folder / MANIFEST).is_file():
        from idml_hf.index import IDMLIndex

        if with_code or with_index:
            raise typer.BadParameter("--with-code and --with-index go with a model, and this is an index")
        index = IDMLIndex.load(folder)
        typer.echo(index.push_space(repo, private=private) if space else index.push_to_hub(repo, private=private))
        return
    from idml_hf.hub import push_folder

    typer.echo(push_folder(folder, repo, private, with_code, with_index=with_index))


@commands.command(epilog="Example: idml-hf export my-model --output onnx")
def export(model: Model, output: Output) -> None:
    """Write a model as ONNX, checked against PyTorch, with its image processor's settings."""
    quiet()
    from idml_hf.export_onnx import export_onnx

    difference = export_onnx(model, output)
    remark(f"{output / 'model.onnx'} computes what PyTorch does, to {difference:.1g}")


__all__ = ["commands"]
