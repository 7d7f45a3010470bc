"""`idml-hf index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import DATASET, BatchSize, GroupColumn, Model, Output, Root, SkipBad, Workers
from .terminal import quiet, remark

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf index my-model --dataset photos/ --output my-index")
def index(
    model: Model,
    output: Output,
    dataset: Annotated[str | None, DATASET] = None,
    features: Annotated[
        Path | None, typer.Option(help="Instead, for a model of vectors: .parquet or .npy, or a folder of the former")
    ] = None,
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
    """Put a collection of images into an index that can be searched; or one of vectors (--features).

    With --features the calibration data are vectors too. A model of images takes what `idml-hf embed` wrote with it.
    """
    quiet()
    if (dataset is None) == (features is None):
        raise typer.BadParameter("give either --dataset or --features", param_hint="--dataset")
    from idml_hf.confidence.calibration import ABSENT
    from idml_hf.data import load_images
    from idml_hf.index import IDMLIndex
    from idml_hf.index_files import MANIFEST

    if (output / MANIFEST).exists() and not overwrite:  # before the work, not after it
        raise FileExistsError(f"{output} holds an index already: give --overwrite to replace it")

    if absent is not None and calibrate is None:
        raise ValueError("--absent is a setting of the calibration: name labelled data with --calibrate")
    absent = ABSENT if absent is None else absent
    if features is not None:
        from .vectors import index_vectors

        built = index_vectors(
            model,
            features,
            split=split,
            calibrate=calibrate,
            absent=absent,
            group_column=group_column,
            engine=engine,
        )
    else:
        assert dataset is not None
        images = load_images(dataset, split, root=root, group_column=group_column, skip_bad_images=skip_bad_images)
        built = IDMLIndex.build(model, images, batch_size=batch_size, num_workers=workers)
        built.use_engine(engine)
        if calibrate is not None:
            labelled = load_images(calibrate, None, group_column=group_column, skip_bad_images=skip_bad_images)
            built.calibrate(labelled, absent=absent)
    built.save(output, overwrite=overwrite)
    remark(f"{len(built)} images in {output}")
    if built.calibration is not None:
        typer.echo(built.calibration.describe())


__all__ = ["commands"]
