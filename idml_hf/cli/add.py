"""`idml-hf add`."""

from __future__ import annotations

from typing import Annotated

import typer

from .parameters import BatchSize, Dataset, GroupColumn, Index, Root, SkipBad
from .terminal import quiet, remark

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf add my-index --dataset more-photos/")
def add(
    index: Index,
    dataset: Dataset,
    root: Root = None,
    split: Annotated[str | None, typer.Option(help="train, validation, test or all")] = None,
    group_column: GroupColumn = None,
    update: Annotated[
        bool, typer.Option("--update", help="An image whose path is in the index takes its place and keeps its id")
    ] = False,
    skip_bad_images: SkipBad = False,
    batch_size: BatchSize = 64,
) -> None:
    """Add images to an index; classes are matched by their names."""
    quiet()
    from idml_hf.data import load_images
    from idml_hf.index import IDMLIndex

    opened = IDMLIndex.load(index)
    images = load_images(dataset, split, root=root, group_column=group_column, skip_bad_images=skip_bad_images)
    before, known = len(opened), set(opened.gallery.paths.to_pylist())
    again = sum(bool(path) and path in known for path in images.ids.to_pylist())
    (opened.upsert if update else opened.add)(images, batch_size=batch_size)
    opened.save(index)
    remark(f"{len(opened) - before} images added, {len(opened)} in {index}")
    if again:
        remark(f"{again} of these paths were there already: {'replaced' if update else '--update replaces them'}")


__all__ = ["commands"]
