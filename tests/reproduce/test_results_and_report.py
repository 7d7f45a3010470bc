"""Results on disk, statistics, and the printed tables."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from idml_hf.reproduce.paper import paper_numbers
from idml_hf.reproduce.report import difference_grid, mean_difference, result_grid, values_of
from idml_hf.reproduce.results import Result, append_result, read_results, results_file, write_csv
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
    return Result("t", row, seed, {"epochs": 1, "method": "plain"}, {"seed": seed, **metrics}, {"torch": "2"})


def test_results_come_back(tmp_path):
    path = results_file(tmp_path, "cub")
    results = [make("IDML-PA", seed, recall_at_1=0.5, aurc=None) for seed in (3, 4)]
    for result in results:
        append_result(path, result)
    assert read_results(tmp_path, "cub") == results
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text().count("\n") == 2
    # of two results of one run the later one counts
    again = make("IDML-PA", 3, recall_at_1=0.7)
    append_result(path, again)
    assert read_results(tmp_path, "cub") == [again, results[1]]
    # JSON has no NaN
    with pytest.raises(ValueError):
        append_result(path, make("IDML-PA", 5, aurc=float("nan")))
    assert len(read_results(tmp_path, "cub")) == 2


def test_a_line_that_was_cut_off_is_made_again_and_swallows_nothing(tmp_path):
    path = results_file(tmp_path, "cub")
    results = [make("A", seed) for seed in range(3)]
    for result in results[:2]:
        append_result(path, result)
    for cut in range(1, 40, 7):
        path.write_text(path.read_text()[:-cut])
        assert read_results(tmp_path, "cub") == results[:1]
        append_result(path, results[1])
        assert read_results(tmp_path, "cub") == results[:2]
    append_result(path, results[2])
    assert read_results(tmp_path, "cub") == results


def test_a_line_that_is_none_is_named(tmp_path):
    append_result(results_file(tmp_path, "cub"), make("A", 0))
    results_file(tmp_path, "cub").open("a").write('{"row": 1}\n')
    with pytest.raises(ValueError, match=r"cub\.jsonl, line 2, is not the result of a run"):
        read_results(tmp_path, "cub")


def test_results_of_the_first_edition_are_read(tmp_path):
    """One file a run, without a method."""
    (tmp_path / "cub").mkdir()
    old = [Result("t", row, 0, {"form": form}, {"r": 1}, {}) for row, form in (("A", "none"), ("B", "ratio"))]
    for result in old:
        (tmp_path / "cub" / f"{result.row.lower()}-seed0.json").write_text(json.dumps(result.__dict__))
    assert read_results(tmp_path, "cub") == old
    assert [result.method for result in old] == ["plain", "introspective"]
    append_result(results_file(tmp_path, "cub"), make("C", 1))
    assert len(read_results(tmp_path, "cub")) == 3


def test_results_take_the_mode_that_the_umask_says(tmp_path):
    before = os.umask(0o007)
    try:
        append_result(results_file(tmp_path, "a"), make("A", 0))
        write_csv(tmp_path / "a.csv", [make("A", 0)])
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o660}


def test_what_is_kept_of_the_published_tables_is_complete():
    folder = Path(__file__).parents[2] / "results"
    assert len(read_results(folder, "emoji")) == 42 and len(read_results(folder, "fashion-mnist")) == 30


def test_a_line_for_each_run(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(path, [make("A", 0, loss="x, y", top1=0.5), make("B", 1, top1=0.25, ece=None)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert rows[0] == {"row": "A", "method": "plain", "seed": "0", "loss": "x, y", "top1": "0.5", "ece": ""}
    assert rows[1] == {"row": "B", "method": "plain", "seed": "1", "loss": "", "top1": "0.25", "ece": ""}


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


def test_no_row_is_compared_with_a_memory_on_one_side_only():
    """What a model reaches by looking back at its training images has columns of its own, for all rows."""
    weighed = {"map_at_r": 0.5, "without_reference_map_at_r": 0.3, "with_reference_map_at_r": 0.5, "nmi": 0.9}
    bare = {"map_at_r": 0.2, "without_reference_map_at_r": 0.2, "with_reference_map_at_r": 0.4, "nmi": 0.8}
    rows = [make("IDML-A", 0, **weighed), make("A", 0, **bare), make("B", 0, map_at_r=0.1)]
    assert values_of(rows, Column("MAP@R", "map_at_r")) == {"IDML-A": {0: 30.0}, "A": {0: 20.0}, "B": {0: 10.0}}
    assert values_of(rows, Column("", "with_reference_map_at_r")) == {"IDML-A": {0: 50.0}, "A": {0: 40.0}}
    # measured with the memory alone
    assert values_of(rows, Column("NMI", "nmi")) == {"A": {0: 80.0}}
    for table in TABLES.values():
        if table.task == "retrieval" and table.method == "introspective":
            assert "with_reference_map_at_r" in {column.key for column in table.columns}
