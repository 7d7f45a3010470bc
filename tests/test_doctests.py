"""The examples in docstrings run, and give the numbers they print."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import idml_hf

MODULES = [name for _, name, _ in pkgutil.walk_packages(idml_hf.__path__, "idml_hf.")]


def examples(name: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    try:
        found = examples(name)
    except ImportError as error:
        pytest.skip(f"an extra is not installed: {error}")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
