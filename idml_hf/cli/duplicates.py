"""`idml-hf duplicates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .parameters import Index
from .terminal import quiet, remark

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf duplicates my-index --threshold 0.98 --output pairs.csv")
def duplicates(
    index: Index,
    threshold: Annotated[float, typer.Option(help="Similarity from which on a pair counts", min=-1, max=1)] = 0.98,
    max_pairs: Annotated[int, typer.Option(help="Pairs at most, the most alike", min=1)] = 10_000,
    output: Annotated[
        Path | None, typer.Option(help="File to write instead of a list: .csv, .parquet or .json")
    ] = None,
) -> None:
    """Find the pairs of images of an index that look nearly the same, the most alike first."""
    quiet()
    import sys

    import pyarrow as pa

    from idml_hf.index import IDMLIndex
    from idml_hf.table_files import table_format, write_csv, write_table

    if output is not None:
        table_format(output)  # before the work, not after it
    opened = IDMLIndex.load(index)
    found = opened.near_duplicates(threshold, max_pairs)
    first, second = (opened.gallery.positions(ids) for ids in found.ids.T)
    paths = opened.gallery.paths
    table = pa.table(
        {
            "similarity": found.scores.round(4),
            "id": found.ids[:, 0],
            "other_id": found.ids[:, 1],
            "path": paths.take(pa.array(first)),
            "other_path": paths.take(pa.array(second)),
        }
    )
    if output is None:
        write_csv(sys.stdout, table, delimiter="\t")
    else:
        write_table(output, table)
    remark(f"{len(found)} pairs of {len(opened)} images with a similarity of at least {threshold:g}")


__all__ = ["commands"]
