"""The numbers printed in the paper."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files


@cache
def paper_numbers(dataset: str) -> dict[tuple[str, str], float]:
    """The paper's table of a data set: (method, metric) -> value, as printed.

    Args:
        dataset: Name of the data set in the paper.

    Returns:
        Empty for a data set that is not in the paper.

    Example:
        >>> paper_numbers("CUB-200-2011")["IDML-PA", "R@1"]
        70.7
    """
    text = files(__package__).joinpath("paper_tables.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {(row["method"], row["metric"]): float(row["value"]) for row in rows if row["dataset"] == dataset}


__all__ = ["paper_numbers"]
