"""`idml-hf embed`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .parameters import BatchSize, Dataset, Model, Output, Root, SkipBad, Workers
from .terminal import quiet, remark

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
    format: Annotated[
        str, typer.Option(help="parquet (vectors as lists of fixed size), csv, or npy (with images.csv beside them)")
    ] = "parquet",
    shard_size: Annotated[int | None, typer.Option(help="Images a file, instead of one file for all", min=1)] = None,
) -> None:
    """Embed images; writes a file with a row for each image.

    With --shard-size several files are written, by all processes of `accelerate launch`; what is interrupted goes on
    with the files that are missing.
    """
    quiet()
    from idml_hf.data import load_images
    from idml_hf.errors import one_of

    one_of("format", format, ("parquet", "csv", "npy"))
    images = load_images(dataset, split, root=root, skip_bad_images=skip_bad_images)
    if shard_size is not None:
        if format != "parquet":
            raise ValueError("--shard-size writes parquet files: leave --format out")
        from idml_hf.embedding_shards import embed_to_shards

        files = embed_to_shards(
            model, images, output, shard_size=shard_size, batch_size=batch_size, num_workers=workers
        )
        if os.environ.get("RANK", "0") == "0":
            remark(f"{len(images)} images in {len(files)} files in {output}")
        return
    from .embedding import embed_to_file

    file = embed_to_file(model, images, output, format, batch_size=batch_size, num_workers=workers)
    remark(f"{len(images)} images in {file}")


__all__ = ["commands"]
