from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "idml_hf.retrieval.topk",
    *(
        f"idml_hf.evaluation.{name}"
        for name in ("clustering", "corruptions", "evaluator", "report", "retrieval", "sheets", "uncertainty")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
