"""`idml-hf index`, `search` and `app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import BatchSize, Dataset, GroupColumn, Model, Output, Root, SkipBad, Workers
from .terminal import quiet

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf index my-model --dataset photos/ --output my-index")
def index(
    model: Model,
    dataset: Dataset,
    output: Output,
    root: Root = None,
    split: Annotated[str | None, typer.Option(help="train, validation, test or all")] = None,
    calibrate: Annotated[str | None, typer.Option(help="Labelled data to learn from when to say: not sure")] = None,
    absent: Annotated[
        float | None, typer.Option(help="Share of the queries to come whose class the collection lacks; default 0.3")
    ] = None,
    group_column: GroupColumn = None,
    skip_bad_images: SkipBad = False,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
    engine: Annotated[
        str, typer.Option(help="flat compares all; ivf, hnsw, or as IVF256,Flat: faster, may miss some")
    ] = "flat",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that is in the folder")] = False,
) -> None:
    """Put a collection of images into an index that can be searched."""
    quiet()
    from idml_hf.confidence.calibration import ABSENT
    from idml_hf.data import load_images
    from idml_hf.index import IDMLIndex
    from idml_hf.index_files import MANIFEST

    if (output / MANIFEST).exists() and not overwrite:  # before the work, not after it
        raise FileExistsError(f"{output} holds an index already: give --overwrite to replace it")

    images = load_images(dataset, split, root=root, group_column=group_column, skip_bad_images=skip_bad_images)
    if absent is not None and calibrate is None:
        raise ValueError("--absent is a setting of the calibration: name labelled data with --calibrate")
    built = IDMLIndex.build(model, images, batch_size=batch_size, num_workers=workers)
    built.use_engine(engine)
    if calibrate is not None:
        labelled = load_images(calibrate, None, group_column=group_column, skip_bad_images=skip_bad_images)
        built.calibrate(labelled, absent=ABSENT if absent is None else absent)
    built.save(output, overwrite=overwrite)
    typer.echo(f"{len(built)} images in {output}")
    if built.calibration is not None:
        typer.echo(built.calibration.describe())


@commands.command(epilog="Example: idml-hf search my-index query.jpg --top-k 5")
def search(
    index: Annotated[Path, typer.Argument(help="Folder that `idml-hf index` wrote")],
    images: Annotated[list[Path], typer.Argument(help="Query images")],
    top_k: Annotated[int, typer.Option(help="Matches for each query", min=1)] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
    sheet: Annotated[Path | None, typer.Option(help="PNG file for a sheet of queries and matches")] = None,
    model: Annotated[str | None, typer.Option(help="Another copy of the model the index was built with")] = None,
    metric: Annotated[str, typer.Option(help="cosine, or introspective to rank by the distance D")] = "cosine",
    error_rate: Annotated[
        float | None, typer.Option(help="Accepted share of wrong first matches; the index must be calibrated")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="The images show one thing: search for it by all of them")
    ] = False,
) -> None:
    """Search an index with pictures; says how certain each answer is."""
    quiet()
    from .searching import search_index

    search_index(
        index,
        images,
        top_k=top_k,
        as_json=json,
        sheet=sheet,
        model=model,
        metric=metric,
        error_rate=error_rate,
        together=together,
    )


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
