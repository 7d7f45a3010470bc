"""`idml-hf embed`."""

from __future__ import annotations

from typing import Annotated

import typer

from .parameters import BatchSize, Dataset, Model, Output, Root, SkipBad, Workers
from .terminal import quiet

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf embed my-model --dataset photos/ --output embeddings")
def embed(
    model: Model,
    dataset: Dataset,
    output: Output,
    root: Root = None,
    split: Annotated[str | None, typer.Option(help="train, validation, test or all")] = None,
    skip_bad_images: SkipBad = False,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
) -> None:
    """Embed images; writes embeddings.parquet, with a row for each image."""
    quiet()
    from idml_hf.data import load_images

    from .embedding import embed_to_parquet

    images = load_images(dataset, split, root=root, skip_bad_images=skip_bad_images)
    file = embed_to_parquet(model, images, output, batch_size=batch_size, num_workers=workers)
    typer.echo(f"{len(images)} images in {file}")


__all__ = ["commands"]
