"""`idml-hf duplicates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import quiet

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf duplicates my-index --threshold 0.98 --output pairs.csv")
def duplicates(
    index: Annotated[Path, typer.Argument(help="Folder that `idml-hf index` wrote")],
    threshold: Annotated[float, typer.Option(help="Similarity from which on a pair counts", min=-1, max=1)] = 0.98,
    max_pairs: Annotated[int, typer.Option(help="Pairs at most, the most alike", min=1)] = 10_000,
    output: Annotated[Path | None, typer.Option(help="CSV file to write instead of a list")] = None,
) -> None:
    """Find the pairs of images of an index that look nearly the same, the most alike first."""
    quiet()
    import csv
    import sys

    from idml_hf.files import replacing
    from idml_hf.index import IDMLIndex

    opened = IDMLIndex.load(index)
    found = opened.near_duplicates(threshold, max_pairs)
    paths = opened.gallery.paths
    rows = [["similarity", "id", "other_id", "path", "other_path"]]
    for ids, score in zip(found.ids.tolist(), found.scores.tolist(), strict=True):
        files = [str(paths[int(place)]) for place in opened.gallery.positions(ids)]
        rows.append([f"{score:.4f}", *map(str, ids), *files])
    if output is None:
        csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows(rows)
    else:
        with replacing(output) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    typer.echo(f"{len(found)} pairs of {len(opened)} images with a similarity of at least {threshold:g}", err=True)


__all__ = ["commands"]
