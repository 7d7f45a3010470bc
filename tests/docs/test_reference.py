"""The reference pages, made when the site is built: no module, command or option is left out."""

from __future__ import annotations

import importlib.util
from collections import Counter

import pytest
from pages import DOCS, ROOT

pytest.importorskip("mkdocs")
griffe = pytest.importorskip("griffe")


def hook(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_public_module_is_on_one_page():
    reference = hook("reference")
    shown = Counter(module for modules in reference.pages().values() for module in modules)
    files = [file.relative_to(ROOT).with_suffix("") for file in (ROOT / "idml_hf").rglob("*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files]
    public = [name for name in names if not any(part.startswith("_") for part in name.split("."))]
    left_out = ("idml_hf.cli", "idml_hf.retrieval")
    expected = [name for name in public if name != "idml_hf" and not name.startswith(left_out)]
    assert shown == Counter(expected)


def test_the_command_line_page_has_each_command_and_option():
    page = hook("reference").command_line_page()
    for heading in ("## idml-hf train", "## idml-hf search", "## idml-hf data check"):
        assert heading in page
    for option in ("--error-rate", "--loss-kwargs", "--augment-on-device", "--threshold", "--root"):
        assert f"`{option} " in page or f"`{option} /" in page


def test_the_page_of_metrics_has_each_key():
    from idml_hf.metric_names import METRICS, PREFIXES, SIGNALS, SUFFIXES

    page = hook("reference").metrics_page()
    for key in (*METRICS, *PREFIXES, *SUFFIXES, *filter(None, SIGNALS)):
        assert f"| `{key}` |" in page


def test_names_in_docstrings_become_links_where_they_lead_somewhere():
    links = hook("cross_references").CrossReferences()
    package = griffe.load("idml_hf", search_paths=[str(ROOT)])
    links.on_package(pkg=package)
    text = package["modeling_metric_learning.IDMLForMetricLearning"].docstring.value
    assert "[`IDMLModel`][idml_hf.modeling_idml.IDMLModel]" in text
    loss_of_config = package["configuration_idml.IDMLConfig"].docstring.value
    assert "[`idml_hf.losses.LOSSES`][idml_hf.losses.LOSSES]" in loss_of_config
