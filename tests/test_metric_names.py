from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import idml_hf
from idml_hf.cli.metrics_table import metrics_table
from idml_hf.evaluation import clustering_metrics, retrieval_metrics, uncertainty_metrics
from idml_hf.evaluation.classification import classification_metrics
from idml_hf.metric_names import METRICS, PREFIXES, SIGNALS, SUFFIXES, key_for, measured, metric, parse
from idml_hf.metric_tables import metric_tables
from idml_hf.reproduce.tables import TABLES

PACKAGE = Path(idml_hf.__file__).parent
TABLE = PACKAGE / "metric_names.py"


def written_titles() -> list[str]:
    """Titles that are not ordinary words, as patterns; a family's number is any number."""
    texts = {text for entry in METRICS.values() for text in (entry.title, entry.paper)}
    texts |= {text for signal in SIGNALS.values() if signal.key for text in (signal.title, signal.phrase)}
    words = {"the uncertainty", "training speed", "absent class", "lone queries"}
    shown = [text for text in texts - words if text.lower() != text or " " in text]
    return [re.escape(text).replace(r"\{n\}", r"\d*").replace(r"\{name\}", "[a-z]+") for text in shown]


def literals(file: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that are not documentation; of a template, all its lines."""
    text = file.read_text("utf-8")
    if file.suffix == ".jinja":
        yield from enumerate(text.splitlines(), 1)
        return
    tree = ast.parse(text)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    documentation = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def twice_written(file: Path) -> list[str]:
    pattern = re.compile(rf"(?<![\w@-])(?:{'|'.join(sorted(written_titles(), key=len, reverse=True))})(?![\w@-])")
    return [f"{file}:{line}: {match[0]!r}" for line, text in literals(file) if (match := pattern.search(text))]


def test_no_title_is_written_twice() -> None:
    files = [file for kind in ("*.py", "*.jinja") for file in PACKAGE.rglob(kind) if file != TABLE]
    assert len(files) > 100
    assert [found for file in files for found in twice_written(file)] == []


@pytest.mark.parametrize(
    "text", ['x = "R@1"', 'x = {"map_at_r": "M@R"}', 'f(f"the {y} e-AURC of")', 'x = "max similarity"']
)
def test_a_title_that_is_written_twice_is_found(text: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(f'"""About R@1."""\n{text}\n')
    assert len(twice_written(file)) == 1
    file.write_text('"""About R@1."""\nx = "recall_at_1"\n')
    assert twice_written(file) == []


def test_every_key_is_put_together_and_taken_apart_alike() -> None:
    bases = [key.replace("{n}", "50").replace("{name}", "blur") for key in METRICS if key != "auroc"]
    assert len(bases) > 40
    for base, signal, prefix, suffix in product(bases, SIGNALS, ["", *PREFIXES], ["", *SUFFIXES]):
        key = key_for(base, signal, prefix=prefix, suffix=suffix)
        parts = parse(key)
        assert parts is not None, key
        assert key_for(parts.metric.key, parts.signal.key, prefix=prefix, suffix=suffix) == key
        assert parts.prefixes == ((prefix,) if prefix else ()) and parts.suffixes == ((suffix,) if suffix else ())
        assert parts.signal.key == signal and parse(f"eval_{key}") == parts


def test_all_that_is_measured_has_a_name() -> None:
    rng = np.random.default_rng(0)
    x, y, groups = rng.standard_normal((40, 5)), np.arange(40) % 5, np.arange(40) % 3
    settings = ("uncertainty_is_constant", "clustering_backend", "clustering_seed", "clustering_iterations")
    all_metrics = retrieval_metrics(x, y) | clustering_metrics(x, y)
    all_metrics |= uncertainty_metrics(x, x[:, 0], y, groups, norms=x[:, 1])
    all_metrics |= classification_metrics(rng.standard_normal((40, 8)), y, uncertainty=x[:, 0])
    nameless = [key for key in all_metrics if parse(key) is None]
    assert sorted(nameless) == sorted(settings)
    titles = [metric(key).title for key in all_metrics if key not in settings]
    # a classifier's uncertainty is called what a retrieval model's is
    assert len(titles) - len(set(titles)) <= 0


def test_what_is_no_metric_is_refused() -> None:
    assert all(parse(key) is None for key in ("dataset", "seed", "recall_at_x", "plain_", "recall_at_{n}", "_margin"))
    with pytest.raises(KeyError, match="Did you mean 'map_at_r'"):
        metric("map_at_rr")


def test_readers_agree_about_unit_digits_and_direction() -> None:
    columns = [column for table in TABLES.values() for column in table.columns]
    for column in columns:
        entry = metric(column.key)
        assert (column.title, column.scale, column.digits) == (entry.paper, entry.scale, entry.digits)
        assert column.higher_is_better == entry.higher_is_better
    assert metric("aurc_margin").higher_is_better is False and metric("num_queries").higher_is_better is None
    metrics = {"protocol": "plain", "recall_at_1": 0.1234, "map_at_r": 0.5, "mrr": math.nan}
    terminal = metrics_table(metrics)
    assert list(terminal.columns[0].cells) == [metric("recall_at_1").title, metric("map_at_r").title]
    assert list(terminal.columns[1].cells) == [metric("recall_at_1").text(0.1234), "50.0 %"] == ["12.3 %", "50.0 %"]
    assert metric_tables(metrics)[0].head == ["protocol", *(metric(key).title for key in list(metrics)[1:])]


def test_the_terminal_says_the_protocol_in_words_and_names_as_they_are() -> None:
    title = metrics_table({"dataset": "photos [red]/", "protocol": "grouped:maker"}).title
    assert str(title) == "photos [red]/: matches of the same maker do not count"
    assert str(metrics_table({"dataset": "x"}).title) == "x: all matches count"


def test_families_are_listed_in_the_order_measured() -> None:
    metrics = dict.fromkeys(["map_at_r", "recall_at_10", "recall_at_1", "map_at_10", "answered_at_5"], 0.5)
    assert measured(metrics, "recall_at_{n}", "nmi", "map_at_{n}", "map_at_r") == [
        "recall_at_10",
        "recall_at_1",
        "map_at_10",
        "map_at_r",
    ]


def test_the_table_imports_nothing_heavy() -> None:
    code = "import sys, idml_hf.metric_names; print({'torch', 'numpy', 'pandas', 'sklearn'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
