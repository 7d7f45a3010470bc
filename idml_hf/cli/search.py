"""`idml-hf search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .parameters import Index, SkipBad
from .terminal import quiet

commands = typer.Typer()


@commands.command(epilog="Example: idml-hf search my-index query.jpg --top-k 5")
def search(
    index: Index,
    images: Annotated[
        list[str] | None, typer.Argument(help="Query images, folders of them, or patterns as 'new/*.jpg'")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Query vectors instead: .parquet or .npy")] = None,
    top_k: Annotated[int, typer.Option(help="Matches for each query", min=1)] = 5,
    where: Annotated[
        list[str] | None, typer.Option(help="Look only where metadata, or class, is so: shop=A; may be repeated")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
    output: Annotated[
        Path | None, typer.Option(help="File for the matches instead: .csv, .parquet (a row each) or .json")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG file for a sheet of queries and matches")] = None,
    model: Annotated[str | None, typer.Option(help="Another copy of the model the index was built with")] = None,
    metric: Annotated[str, typer.Option(help="cosine, or introspective to rank by the distance D")] = "cosine",
    error_rate: Annotated[
        float | None, typer.Option(help="Accepted share of wrong first matches; the index must be calibrated")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="The images show one thing: search for it by all of them")
    ] = False,
    skip_bad_images: SkipBad = False,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch queries that are http(s) addresses")] = False,
) -> None:
    """Search an index with pictures, or with vectors (--features); says how certain each answer is."""
    quiet()
    if (not images) == (features is None):
        raise typer.BadParameter("give either images or --features", param_hint="IMAGES")
    from .query_files import query_files
    from .searching import conditions, search_index

    options: dict[str, Any] = {
        "top_k": top_k,
        "as_json": json,
        "output": output,
        "model": model,
        "metric": metric,
        "error_rate": error_rate,
        "where": conditions(where or ()),
    }
    if features is not None:
        from .vectors import search_vectors

        search_vectors(index, features, **options)
        return
    with query_files(images or [], skip_bad_images=skip_bad_images, allow_urls=allow_urls) as queries:
        search_index(index, queries, sheet=sheet, together=together, **options)


__all__ = ["commands"]
