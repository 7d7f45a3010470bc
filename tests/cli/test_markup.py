"""Names with square brackets, which a terminal's markup would take for its own, are printed as they are."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from idml_hf.cli.description import description_tables
from idml_hf.cli.metrics_table import metrics_table
from idml_hf.cli.searching import result_table

NAMES = st.one_of(
    st.sampled_from(["[red]", "[/]", "[/bold]", "photo[1].jpg", "\\[a]", "a\\", "[[b]]", "[link=x]y", ":smile:"]),
    st.text("[]/\\ab=#:", min_size=1, max_size=12),
)


def printed(*tables) -> str:
    out = io.StringIO()
    console = Console(file=out, width=600, emoji=True, force_terminal=False)
    for table in tables:
        console.print(table)
    return out.getvalue()


@given(NAMES, NAMES, NAMES, NAMES, st.booleans())
def test_in_the_table_of_matches(query, name, path, known, abstained):
    match = {"name": name, "score": 0.5, "uncertainty": 0.1, "path": path, "metadata": {known: known}}
    entry = {"query": query, "uncertainty": 0.2, "abstained": abstained, "confidence": 0.7, "bar": 0.6}
    text = printed(result_table(entry | {"reason": f"filed under {name}", "matches": [match]}, 600))
    assert all(part in text for part in (query, name, path, known))


@given(NAMES, NAMES)
def test_in_the_table_of_metrics(dataset, column):
    text = printed(metrics_table({"dataset": dataset, "protocol": f"grouped:{column}", "recall_at_1": 0.5}))
    assert dataset in text and column in text


@given(NAMES, NAMES, NAMES)
def test_in_what_an_index_is(name, column, place):
    known = {"kind": "index", "class_names": [name], "metadata": {column: "string"}, "model": place}
    text = printed(*description_tables(known | {"calibration": None, "bytes": 7}))
    assert name in text and column in text and place in text
