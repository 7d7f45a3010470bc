"""`idml-hf audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import BatchSize, GroupColumn, Output, Root, Workers
from .terminal import quiet

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf audit photos/ --backbone resnet50 --output my-audit")
def audit(
    dataset: Annotated[
        str, typer.Argument(help="Name, folder, or Hub id of a data set; all its splits are looked at")
    ],
    output: Output,
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub id of an IDML model that describes pictures")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="timm architecture that describes pictures, pretrained")] = None,
    weights: Annotated[Path | None, typer.Option(help="Local file of the backbone's weights")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images for the backbone; unset: its own")] = None,
    root: Root = None,
    group_column: GroupColumn = None,
    least_precision: Annotated[
        float, typer.Option(help="Wrong labels are listed while this share is expected to be wrong", min=0, max=1)
    ] = 0.7,
    apply: Annotated[Path | None, typer.Option(help="CSV file for the paths and labels that stay")] = None,
    batch_size: BatchSize = 64,
    workers: Workers = 0,
    seed: Annotated[int, typer.Option(help="Seed that deals pictures into folds", min=0)] = 0,
) -> None:
    """Find wrong labels, copies, ambiguous and foreign pictures, and those that cannot be used.

    Writes findings.csv, findings.html, a page of pictures, and summary.json. Nothing is changed in the collection.
    """
    quiet()
    from idml_hf.audit.collection import audit_images, describing_model, open_collection

    images, splits = open_collection(dataset, root=root, group_column=group_column)
    described_by = describing_model(model, backbone, weights, image_size)
    found = audit_images(
        images,
        *described_by,
        splits=splits,
        least_precision=least_precision,
        batch_size=batch_size,
        num_workers=workers,
        seed=seed,
    )
    found.save(output, dataset)
    for kind, number in found.summary["findings"].items():
        if number:
            typer.echo(f"{number:7} {kind}")
    if found.wrong_labels is not None:
        typer.echo(f"About {found.wrong_labels:.1%} of {found.judged} labels are estimated to be wrong")
    if apply is not None:
        typer.echo(f"{found.write_kept(apply)} of {len(images)} pictures stay, listed in {apply}")
    typer.echo(f"Look at {output / 'findings.html'}")


__all__ = ["commands"]
