"""`idml-hf features`."""

from __future__ import annotations

from typing import Annotated

import typer

from idml_hf.processes import is_first_process

from .parameters import Dataset, GroupColumn, Output, Root, SkipBad, Workers
from .terminal import quiet

commands = typer.Typer()


@commands.command(
    epilog="Example: idml-hf features --backbone resnet50 --dataset photos/ --image-size 96 --output my-features",
)
def features(
    backbone: Annotated[str, typer.Option(help="timm architecture of the backbone")],
    dataset: Dataset,
    output: Output,
    weights: Annotated[str | None, typer.Option(help="Local file of backbone weights in timm's naming")] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--no-pretrained", help="Pretrained weights from the Hub; unset: if they can be had"
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels; unset: the backbone's own", min=1)
    ] = None,
    crop_pct: Annotated[
        float | None, typer.Option(help="Share of the resized image that the centre crop keeps", min=0.01, max=1)
    ] = None,
    root: Root = None,
    group_column: GroupColumn = None,
    skip_bad_images: SkipBad = False,
    seed: Annotated[int, typer.Option(help="Seed of random weights and of degraded copies", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Images at a time; degraded copies depend on it", min=1)] = 120,
    workers: Workers = 0,
    shard_size: Annotated[int, typer.Option(help="Images a file, rounded up to whole batches", min=1)] = 10_000,
) -> None:
    """Run a frozen backbone once over the images; `train --features` then fits heads in seconds.

    Keeps its features of training and test images in half precision, and its weights. The files are written by all
    processes of `accelerate launch`; what is interrupted goes on with the files that are missing.
    """
    quiet()
    from idml_hf.training.features_run import make_features
    from idml_hf.training.settings import Run

    run = Run(
        output=str(output),
        backbone=backbone,
        weights=weights,
        pretrained=pretrained,
        image_size=image_size,
        crop_pct=crop_pct,
        dataset=dataset,
        root=None if root is None else str(root),
        group_column=group_column,
        skip_bad_images=skip_bad_images,
        seed=seed,
        workers=workers,
        frozen_trunk=True,
    )
    store = make_features(run, shard_size, batch_size)
    if is_first_process():
        counts = ", ".join(f"{len(images)} {split} images" for split, images in store.splits.items())
        typer.echo(f"{counts}, {store.splits['train'].width} values each, in {output}")


__all__ = ["commands"]
