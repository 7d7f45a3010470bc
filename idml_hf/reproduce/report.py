"""The results at hand, in the layout of the paper's table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import isnan
from typing import Any

from rich.table import Table as Grid

from idml_hf.training.tasks import REFERENCE_CHANGES

from .paper import paper_numbers
from .results import Result
from .statistics import Difference, mean_and_deviation, paired_difference
from .tables import Column, Table

Values = Mapping[str, Mapping[int, float]]


def values_of(results: list[Result], column: Column) -> Values:
    """Row -> seed -> value of a metric, in the paper's unit; what a run has not measured is left out.

    Of a model that looks back at its training images, what it reaches without them counts, as in all other rows.
    """
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for result in results:
        value = _without_reference(result.metrics, column.key)
        if value is not None:
            values[result.row][result.seed] = column.scale * value
    return values


def _without_reference(metrics: Mapping[str, Any], key: str) -> Any:
    bare = metrics.get(f"without_reference_{key}")
    if bare is not None or key not in REFERENCE_CHANGES:
        return metrics.get(key) if bare is None else bare
    looks_back = metrics.get("without_reference_map_at_r") not in (None, metrics.get("map_at_r"))
    return None if looks_back else metrics.get(key)


def result_grid(table: Table, results: list[Result]) -> Grid:
    """Methods by metrics: our mean ± standard deviation over seeds, and the paper's number."""
    paper = paper_numbers(table.paper) if table.paper else {}
    grid = Grid(title=table.title)
    grid.add_column("Method")
    grid.add_column("seeds", justify="right")
    for column in table.columns:
        if paper:
            grid.add_column(f"{column.title}\npaper", justify="right")
        grid.add_column(f"{column.title}\nours", justify="right")
    counts = {row.name: sum(result.row == row.name for result in results) for row in table.rows}
    values = {column: values_of(results, column) for column in table.columns}
    for row in table.rows:
        cells = [row.name, str(counts[row.name])]
        for column in table.columns:
            if paper:
                printed = paper.get((row.name, column.title))
                cells.append("" if printed is None else f"{printed:.{column.digits}f}")
            cells.append(_mean(list(values[column].get(row.name, {}).values()), column.digits))
        grid.add_row(*cells, end_section=row.against is not None)
    return grid


def difference_grid(table: Table, results: list[Result]) -> Grid:
    """Each introspective row minus its plain one, seed by seed, with 95 % intervals, and the mean over all pairs.

    A row is `ahead` or `behind` only where the interval excludes 0.
    """
    paper = paper_numbers(table.paper) if table.paper else {}
    grid = Grid(title="Paired difference, mean [95 % interval]")
    grid.add_column("Pair")
    grid.add_column("seeds", justify="right")
    for column in table.columns:
        if paper:
            grid.add_column(f"{column.title}\npaper", justify="right")
        grid.add_column(f"{column.title}\nours", justify="right")
    values = {column: values_of(results, column) for column in table.columns}
    pairs = [(row.name, row.against) for row in table.rows if row.against is not None]
    for ours, plain in pairs:
        cells = []
        seeds = 0
        for column in table.columns:
            if paper:
                printed = [paper.get((name, column.title)) for name in (ours, plain)]
                both = None if None in printed else printed[0] - printed[1]  # type: ignore[operator]
                cells.append("" if both is None else f"{both:+.{column.digits}f}")
            difference = paired_difference(values[column].get(ours, {}), values[column].get(plain, {}))
            seeds = max(seeds, difference.pairs if difference else 0)
            cells.append(_difference(difference, column))
        grid.add_row(f"{ours} - {plain}", str(seeds), *cells)
    if len(pairs) > 1:
        grid.add_section()
        cells = []
        for column in table.columns:
            cells += [""] if paper else []
            cells.append(_difference(mean_difference(table, values[column]), column))
        grid.add_row("mean of the pairs", "", *cells)
    return grid


def mean_difference(table: Table, values: Values) -> Difference | None:
    """The difference averaged over all pairs of a table, for the seeds for which every pair is complete."""
    pairs = [(row.name, row.against) for row in table.rows if row.against is not None]
    names = [name for pair in pairs for name in pair]
    seeds = set.intersection(*(set(values.get(name or "", {})) for name in names))
    sides = [
        {seed: sum(values[pair[side] or ""][seed] for pair in pairs) / len(pairs) for seed in seeds} for side in (0, 1)
    ]
    return paired_difference(*sides)


def _mean(values: list[float], digits: int) -> str:
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" if isnan(deviation) else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def _difference(difference: Difference | None, column: Column) -> str:
    if difference is None:
        return ""
    digits = column.digits
    text = f"{difference.mean:+.{digits}f}"
    if isnan(difference.low):
        return text
    text += f"\n[{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    if difference.excludes_zero:
        text += "\nahead" if (difference.mean > 0) == column.higher_is_better else "\nbehind"
    return text


__all__ = ["difference_grid", "mean_difference", "result_grid", "values_of"]
