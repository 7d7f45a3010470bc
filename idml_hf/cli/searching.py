"""`idml-hf search`: matches as a table, as JSON, as a file, and as a sheet of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from idml_hf.confidence.verdict import below
from idml_hf.files import replacing, write_json
from idml_hf.index import IDMLIndex
from idml_hf.index.results import SearchResult
from idml_hf.table_files import table_format, write_table

from .query_files import Queries
from .terminal import remark

# what a table takes without metadata, and for each column of it
_PLAIN_WIDTH, _COLUMN_WIDTH = 84, 16


def search_index(
    index: Path,
    queries: Queries,
    *,
    top_k: int = 5,
    as_json: bool = False,
    output: Path | None = None,
    sheet: Path | None = None,
    model: str | None = None,
    metric: str = "cosine",
    error_rate: float | None = None,
    together: bool = False,
    where: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Search an index with image files, and print or write what is found.

    Args:
        index: Folder of the index.
        queries: Query images.
        top_k: Matches for each.
        as_json: Print JSON instead of a table.
        output: CSV, Parquet or JSON file to write instead.
        sheet: PNG file for a sheet of queries and matches.
        model: Another copy of the index's model.
        metric, error_rate, together: As for [`IDMLIndex.search`].
        where: As there, but with all values as texts.

    Raises:
        FileNotFoundError, ValueError: naming the index, image or model that cannot be read.
    """
    opened, wanted = open_to_search(index, model, where, output)
    result = opened.search(
        queries.files, k=top_k, metric=metric, error_rate=error_rate, where=wanted, together=together
    )
    result = replace(result, queries=(" + ".join(queries.names),) if together else tuple(queries.names))
    if sheet is not None:
        rows = [queries.files] if together else [[file] for file in queries.files]
        with replacing(sheet) as part:
            match_sheet(opened, rows, result).save(part)
    show(result, as_json, output)


def open_to_search(
    index: Path, model: str | None, where: Mapping[str, Sequence[str]] | None, output: Path | None
) -> tuple[IDMLIndex, dict[str, Any] | None]:
    """The index, and the conditions in the types of its metadata; a file that cannot be written is said first.

    Raises:
        FileNotFoundError, ValueError: naming the index, the model, a condition or the file that does not do.
    """
    if output is not None:
        table_format(output)
    opened = IDMLIndex.load(index, model)
    return opened, None if where is None else typed(where, opened.gallery.metadata)


def show(result: SearchResult, as_json: bool = False, output: Path | None = None) -> None:
    """Print what is found, as tables or as JSON, or write it to a file."""
    if output is not None:
        _write(result, output)
        remark(f"{len(result)} queries in {output}")
    elif as_json:
        print(json.dumps(result.to_dicts(), indent=2))
    else:
        console = Console()
        for entry in result.to_dicts():
            console.print(result_table(entry, console.width))


def _write(result: SearchResult, output: Path) -> None:
    if table_format(output) == ".json":
        write_json(output, result.to_dicts())
    else:
        write_table(output, result.to_table())


def conditions(words: Sequence[str]) -> dict[str, list[str]] | None:
    """What `--where` says, each as `column=value`; a column that is named several times may have any of its values.

    Raises:
        ValueError: for a word without `=`.

    Example:
        >>> conditions(["shop=A", "shop=B", "year=2020"])
        {'shop': ['A', 'B'], 'year': ['2020']}
    """
    out: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"--where takes column=value, got {word!r}")
        out.setdefault(name, []).append(value)
    return out or None


def typed(where: Mapping[str, Sequence[str]], columns: Mapping[str, pa.Array]) -> dict[str, list[Any]]:
    """Wanted values as the columns hold them: numbers and truth values where these are not texts.

    Raises:
        ValueError: naming a value that its column cannot hold.
    """
    out: dict[str, list[Any]] = {}
    for name, values in where.items():
        kind = columns[name].type if name in columns else pa.string()
        try:
            out[name] = pa.array(list(values), pa.string()).cast(kind).to_pylist()
        except pa.ArrowInvalid:
            raise ValueError(f"--where: column {name!r} holds {kind}, which {', '.join(values)} is not") from None
    return out


def result_table(entry: dict[str, Any], width: int = 120) -> Table:
    """One query's matches; `entry` is one of `SearchResult.to_dicts()`.

    Columns of metadata are shown as far as `width` characters have room for them; JSON has all.
    """
    # texts, since names may hold what the terminal would take for markup, or for the name of an emoji
    title = Text(f"{entry['query']} · uncertainty {entry['uncertainty']:.3f}", style="table.title")
    if entry["abstained"]:
        title.append(" · ").append("not sure", style="red")
        title.append(f": confidence {below(entry['confidence'])}, {entry['reason']}")
    elif entry["abstained"] is not None:
        title.append(f" · confidence {below(entry['confidence'])}")
        if entry["bar"] is not None:
            title.append(f" (an answer takes {below(entry['bar'])})")
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("class", overflow="fold")
    table.add_column("similarity", justify="right")
    table.add_column("uncertainty", justify="right")
    table.add_column("image", overflow="fold")
    columns = list(entry["matches"][0].get("metadata", ())) if entry["matches"] else []
    columns = columns[: max(0, width - _PLAIN_WIDTH) // _COLUMN_WIDTH]
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for rank, match in enumerate(entry["matches"], 1):
        known = ["" if match["metadata"][name] is None else str(match["metadata"][name]) for name in columns]
        numbers = f"{match['score']:.3f}", f"{match['uncertainty']:.3f}"
        table.add_row(str(rank), Text(match["name"]), *numbers, Text(match["path"]), *map(Text, known))
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
        cells = [Cell(picture, _said(result, row)) for picture in pictures]
        for rank, item in enumerate(result.ids[row].tolist()):
            if item >= 0 and thumbnails is not None:
                caption = f"{result.scores[row, rank]:.2f} {result.names[row, rank]}"
                cells.append(Cell(thumbnails.image(positions[item]), caption))
        rows.append(cells)
    return sheet(rows, lines=3)


def _said(result: SearchResult, row: int) -> str:
    """The verdict on a query and its uncertainty, for the caption of its picture."""
    uncertainty = f"u {result.uncertainty[row]:.2f}"
    if result.confidence is None or result.abstained is None:
        return uncertainty
    verdict = "not sure" if result.abstained[row] else "answer"
    return f"{verdict}, {below(float(result.confidence[row]))} {uncertainty}"


__all__ = ["conditions", "match_sheet", "result_table", "search_index", "show", "typed"]
