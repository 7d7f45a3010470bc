"""`idml-hf duplicates`: the pairs of an index, printed or as a file."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from idml_hf import IDMLIndex
from idml_hf.cli import main


@pytest.fixture
def index(tmp_path):
    rows = np.eye(5)[[0, 1, 0, 2, 1]]
    rows[4, 3] = 0.1  # nearly row 1
    IDMLIndex.from_embeddings(rows, paths=[f"{name}.png" for name in "abcde"]).save(tmp_path / "index")
    return tmp_path / "index"


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["duplicates", *map(str, arguments)])
    return stop.value.code


def test_the_pairs_are_written_with_the_most_alike_first(index, tmp_path):
    assert not run(index, "--threshold", "0.9", "--output", tmp_path / "pairs.csv")
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open(encoding="utf-8")))
    assert [(row["path"], row["other_path"]) for row in rows] == [("a.png", "c.png"), ("b.png", "e.png")]
    assert [float(row["similarity"]) for row in rows] == pytest.approx([1, 1 / np.sqrt(1.01)], abs=1e-4)
    assert [(row["id"], row["other_id"]) for row in rows] == [("0", "2"), ("1", "4")]


def test_without_a_file_they_are_printed(index, capsys):
    assert not run(index, "--max-pairs", "1")
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == ["1.0\t0\t2\ta.png\tc.png"]
    assert "1 pairs of 5 images" in printed.err


def test_a_threshold_that_is_no_cosine_is_refused(index):
    assert run(index, "--threshold", "1.5") == 2
