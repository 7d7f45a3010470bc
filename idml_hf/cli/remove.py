"""`idml-hf remove`."""

from __future__ import annotations

from typing import Annotated

import typer

from .parameters import Index
from .terminal import quiet, remark

commands = typer.Typer()


@commands.command(epilog='Example: idml-hf remove my-index --path "photos/red mug/3.jpg"')
def remove(
    index: Index,
    id: Annotated[list[int] | None, typer.Option(help="Id of an image, as search prints it; may be repeated")] = None,
    path: Annotated[list[str] | None, typer.Option(help="Path of an image; may be repeated")] = None,
    class_name: Annotated[list[str] | None, typer.Option("--class", help="Class to take out; may be repeated")] = None,
) -> None:
    """Take images out of an index; the others keep their ids. Nothing is removed if one of these is not there."""
    quiet()
    from idml_hf.index import IDMLIndex

    if not (id or path or class_name):
        raise typer.BadParameter("name what to remove by --id, --path or --class")
    opened = IDMLIndex.load(index)
    before = len(opened)
    try:
        for items in (id, path):
            if items:
                opened.remove(items)
        for name in class_name or ():
            opened.remove(class_name=name)
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    opened.save(index)
    remark(f"{before - len(opened)} images removed, {len(opened)} left in {index}")


__all__ = ["commands"]
