"""Results on disk, statistics, and the printed tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from idml_hf.reproduce.paper import paper_numbers
from idml_hf.reproduce.report import difference_grid, mean_difference, result_grid, values_of
from idml_hf.reproduce.results import Result, read_result, result_path, write_atomically, write_csv, write_result
from idml_hf.reproduce.statistics import mean_and_deviation, paired_difference
from idml_hf.reproduce.tables import TABLES, Column, Row, Table

finite = st.floats(-100, 100)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=6))
def test_the_interval_is_that_of_the_paired_t_test(pairs):
    ours, plain = (dict(enumerate(side)) for side in zip(*pairs, strict=True))
    difference = paired_difference(ours, plain)
    test = stats.ttest_rel(list(ours.values()), list(plain.values()))
    assert difference.mean == pytest.approx(np.mean([a - b for a, b in pairs]), abs=1e-9)
    interval = test.confidence_interval(0.95)
    if np.isfinite(interval.low) and abs(interval.high - interval.low) > 1e-6:
        assert (difference.low, difference.high) == pytest.approx(tuple(interval), abs=1e-6)
        assert difference.excludes_zero == (test.pvalue < 0.05) or abs(test.pvalue - 0.05) < 1e-6


def test_only_seeds_of_both_sides_count():
    assert paired_difference({0: 1.0, 1: 5.0}, {1: 2.0, 2: 9.0}).mean == 3.0
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    single = paired_difference({0: 2.0}, {0: 1.0})
    assert np.isnan(single.low) and not single.excludes_zero
    assert np.isnan(mean_and_deviation([1.0])[1])


def make(row, seed, **metrics):
    return Result("t", row, seed, {"epochs": 1}, {"seed": seed, **metrics}, {"torch": "2"})


def test_a_result_comes_back(tmp_path):
    path = result_path(tmp_path, "cub", "IDML-PA", 3)
    assert path.name == "idml-pa-seed3.json" and path.parent.name == "cub"
    result = make("IDML-PA", 3, recall_at_1=0.5, aurc=None)
    write_result(path, result)
    assert read_result(path) == result
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match=r"idml-pa-seed3\.json is not the result of a run"):
        read_result(path)
    # JSON has no NaN
    with pytest.raises(ValueError):
        write_result(path, make("IDML-PA", 3, aurc=float("nan")))


def test_names_of_rows_are_names_of_files():
    for table in TABLES.values():
        names = {result_path(Path(), table.name, row.name, 0) for row in table.rows}
        assert len(names) == len(table.rows)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_line_for_each_run(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(path, [make("A", 0, loss="x, y", top1=0.5), make("B", 1, top1=0.25, ece=None)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert rows[0] == {"row": "A", "seed": "0", "loss": "x, y", "top1": "0.5", "ece": ""}
    assert rows[1] == {"row": "B", "seed": "1", "loss": "", "top1": "0.25", "ece": ""}


@pytest.mark.parametrize(
    ("dataset", "method", "metric", "value"),
    [
        ("CUB-200-2011", "ProxyAnchor", "R@1", 69.0),
        ("Cars196", "IDML-PA", "R@1", 90.6),
        ("Stanford Online Products", "IDML-PA", "R@10", 92.7),
        ("ImageNet-1K", "IDML-Cutmix", "Top-1 Acc", 79.04),
        ("Cifar 100", "Baseline", "Top-5 Acc", 96.31),
        ("Cifar 10", "ISM-Baseline", "Top-1 Acc", 96.43),
    ],
)
def test_numbers_of_the_paper(dataset, method, metric, value):
    assert paper_numbers(dataset)[method, metric] == value


@pytest.mark.parametrize("table", [t for t in TABLES.values() if t.paper], ids=lambda t: t.name)
def test_every_cell_of_the_paper_has_its_place(table):
    cells = {(row.name, column.title) for row in table.rows for column in table.columns}
    assert cells == set(paper_numbers(table.paper))


ROWS = (Row("A", ()), Row("IDML-A", (), against="A"), Row("B", ()), Row("IDML-B", (), against="B"))
COLUMNS = (Column("R@1", "recall_at_1"), Column("AURC", "aurc", 1000.0, higher_is_better=False))
TABLE = Table("t", "Title", "retrieval", ROWS, COLUMNS)


def printed(grid):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(grid)
    return console.export_text()


@pytest.fixture
def results():
    gains = {"A": 0.0, "IDML-A": 0.02, "B": 0.1, "IDML-B": 0.1}
    noise = {0: 0.001, 1: -0.001, 2: 0.0}
    out = []
    for row, gain in gains.items():
        for seed, jitter in noise.items():
            jitter *= 3 if row.startswith("IDML") else 1
            out.append(make(row, seed, recall_at_1=0.5 + gain + jitter, aurc=0.1 + gain + jitter))
    return out


def test_the_table_shows_means_and_deviations(results):
    text = printed(result_grid(TABLE, results))
    assert "Title" in text and "52.0 ± 0.3" in text and "60.0 ± 0.1" in text
    assert "paper" not in text


def test_differences_are_called_ahead_only_where_zero_is_excluded(results):
    lines = printed(difference_grid(TABLE, results))
    first, second = lines.split("IDML-B - B")
    # R@1 rose, which is ahead; AURC rose, which is behind
    assert "+2.0" in first and "[+1.5, +2.5]" in first and "ahead" in first and "behind" in first
    assert "+0.0" in second.split("mean of the pairs")[0]
    assert "ahead" not in second.split("mean of the pairs")[0]
    mean = mean_difference(TABLE, values_of(results, COLUMNS[0]))
    assert mean.mean == pytest.approx(1.0) and mean.pairs == 3


def test_the_mean_of_pairs_takes_complete_seeds(results):
    fewer = [result for result in results if not (result.row == "B" and result.seed == 1)]
    assert mean_difference(TABLE, values_of(fewer, COLUMNS[0])).pairs == 2
    assert mean_difference(TABLE, values_of(fewer[:4], COLUMNS[0])) is None


def test_the_papers_numbers_stand_beside_ours():
    table = TABLES["cub"]
    results = [make("ProxyAnchor", 0, recall_at_1=0.6), make("IDML-PA", 0, recall_at_1=0.65)]
    text = printed(result_grid(table, results))
    line = next(line for line in text.splitlines() if "IDML-PA" in line)
    assert "70.7" in line and "65.0" in line and "28.4" in line
    line = next(line for line in printed(difference_grid(table, results)).splitlines() if "IDML-PA" in line)
    assert "+1.7" in line and "+5.0" in line


def test_what_was_not_measured_is_left_blank():
    values = values_of([make("A", 0, recall_at_1=None), make("A", 1, recall_at_1=0.5)], COLUMNS[0])
    assert values == {"A": {1: 50.0}}
    json.dumps(values)
