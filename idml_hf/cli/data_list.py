"""The data sets known by name, as a list and as text."""

from __future__ import annotations

import textwrap
from typing import Any

from idml_hf.data.dataset_spec import UNKNOWN_LICENCE, DatasetSpec
from idml_hf.data.registry import DATASETS


def data_list() -> list[dict[str, Any]]:
    """An entry for each registered data set, JSON-ready."""
    return [
        {
            "name": spec.name,
            "title": spec.title,
            "task": spec.task,
            "images": {split: images for split, (images, _) in spec.expected.items()},
            "classes": {split: classes for split, (_, classes) in spec.expected.items()},
            "source": _source(spec),
            "licence": "not recorded: ask its authors" if spec.licence is UNKNOWN_LICENCE else spec.licence.terms,
        }
        for spec in DATASETS.values()
    ]


def _source(spec: DatasetSpec) -> str:
    if spec.embedded is not None:
        return "comes with the package"
    folder = f"--root FOLDER with {spec.layout}"
    return folder if spec.hub_id is None else f"{spec.hub_id} on the Hub, or {folder}"


def data_text(entries: list[dict[str, Any]]) -> str:
    """The entries of `data_list()` as text, a few lines each."""
    return "\n\n".join(_lines(entry) for entry in entries)


def _lines(entry: dict[str, Any]) -> str:
    sizes = [
        f"{split} {images:,} images of {entry['classes'][split]:,} classes"
        for split, images in entry["images"].items()
    ]
    parts = {"task": entry["task"], "size": "; ".join(sizes), "get it": entry["source"], "terms": entry["licence"]}
    rows = [
        textwrap.fill(text, 100, break_on_hyphens=False, initial_indent=f"  {name:8}", subsequent_indent=" " * 10)
        for name, text in parts.items()
    ]
    return "\n".join([f"{entry['name']}: {entry['title']}", *rows])


__all__ = ["data_list", "data_text"]
