"""`idml-hf app`."""

from __future__ import annotations

from typing import Annotated

import typer

from .parameters import Model
from .terminal import quiet

commands = typer.Typer()


@commands.command("app", epilog="Example: idml-hf app my-model my-index")
def browse(
    model: Model,
    index: Annotated[str, typer.Argument(help="Folder or Hub id of an index")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; unset: the first free one from 7860 on")] = None,
) -> None:
    """Search an index in the browser (needs the extra `app`)."""
    quiet()
    from idml_hf.app.page import launch_app

    launch_app(index, model, host=host, port=port)


__all__ = ["commands"]
