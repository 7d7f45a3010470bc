"""`idml-hf search`: matches as a table, as JSON, and as a sheet of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from idml_hf.confidence.verdict import below
from idml_hf.index import IDMLIndex
from idml_hf.index.results import SearchResult

# what a table takes without metadata, and for each column of it
_PLAIN_WIDTH, _COLUMN_WIDTH = 84, 16


def search_index(
    index: Path,
    images: list[Path],
    *,
    top_k: int = 5,
    as_json: bool = False,
    sheet: Path | None = None,
    model: str | None = None,
    metric: str = "cosine",
    error_rate: float | None = None,
    together: bool = False,
) -> None:
    """Search an index with image files and print what is found.

    Args:
        index: Folder of the index.
        images: Query images.
        top_k: Matches for each.
        as_json: Print JSON instead of a table.
        sheet: PNG file for a sheet of queries and matches.
        model: Another copy of the index's model.
        metric, error_rate, together: As for [`IDMLIndex.search`].

    Raises:
        FileNotFoundError, ValueError: naming the index, image or model that cannot be read.
    """
    opened = IDMLIndex.load(index, model)
    names = [str(image) for image in images]
    result = opened.search(names, k=top_k, metric=metric, error_rate=error_rate, together=together)
    if sheet is not None:
        match_sheet(opened, [images] if together else [[image] for image in images], result).save(sheet)
    if as_json:
        print(json.dumps(result.to_dicts(), indent=2))
        return
    console = Console()
    for entry in result.to_dicts():
        console.print(result_table(entry, console.width))


def result_table(entry: dict[str, Any], width: int = 120) -> Table:
    """One query's matches; `entry` is one of `SearchResult.to_dicts()`.

    Columns of metadata are shown as far as `width` characters have room for them; JSON has all.
    """
    verdict = ""
    if entry["abstained"] is not None:
        verdict = f" · confidence {below(entry['confidence'])}"
        if entry["abstained"]:
            verdict = f" · [red]not sure[/red]: confidence {below(entry['confidence'])}, {escape(entry['reason'])}"
        elif entry["bar"] is not None:
            verdict += f" (an answer takes {below(entry['bar'])})"
    table = Table(title=f"{entry['query']} · uncertainty {entry['uncertainty']:.3f}{verdict}", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("class")
    table.add_column("similarity", justify="right")
    table.add_column("uncertainty", justify="right")
    table.add_column("image", overflow="fold")
    columns = list(entry["matches"][0].get("metadata", ())) if entry["matches"] else []
    columns = columns[: max(0, width - _PLAIN_WIDTH) // _COLUMN_WIDTH]
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for rank, match in enumerate(entry["matches"], 1):
        known = ["" if match["metadata"][name] is None else escape(str(match["metadata"][name])) for name in columns]
        numbers = f"{match['score']:.3f}", f"{match['uncertainty']:.3f}"
        table.add_row(str(rank), escape(match["name"]), *numbers, escape(match["path"]), *known)
    return table


def match_sheet(index: IDMLIndex, queries: list[list[Any]], result: SearchResult) -> Any:
    """A sheet with a row for each query, of one picture or several, paths or PIL images: it, then its matches."""
    from PIL import Image

    from idml_hf.data.decoding import decode_pil, read_file
    from idml_hf.image_sheet import Cell, sheet

    rows = []
    thumbnails = index.gallery.thumbnails
    positions = {int(i): at for at, i in enumerate(index.gallery.ids)}
    for row, query in enumerate(queries):
        pictures = [
            picture if isinstance(picture, Image.Image) else decode_pil(read_file(picture)) for picture in query
        ]
        cells = [Cell(picture, f"u {result.uncertainty[row]:.2f}") for picture in pictures]
        for rank, item in enumerate(result.ids[row].tolist()):
            if item >= 0 and thumbnails is not None:
                caption = f"{result.scores[row, rank]:.2f} {result.names[row, rank]}"
                cells.append(Cell(thumbnails.image(positions[item]), caption))
        rows.append(cells)
    return sheet(rows, lines=3)


__all__ = ["match_sheet", "result_table", "search_index"]
