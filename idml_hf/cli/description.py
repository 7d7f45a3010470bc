"""`idml-hf info`: what an index or a model is, as JSON and as tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from idml_hf.confidence.verdict import below
from idml_hf.configuration_idml import IDMLConfig
from idml_hf.errors import listing
from idml_hf.files import read_json
from idml_hf.image_processing_idml import IDMLImageProcessor
from idml_hf.index import IDMLIndex
from idml_hf.index_files import MANIFEST
from idml_hf.metric_names import measured, metric, protocol_in_words

_OF_CONFIG = (
    "backbone",
    "pool",
    "embedding_dim",
    "uncertainty_dim",
    "form",
    "tau",
    "uncertainty_activation",
    "uncertainty_head",
    "reference_weight",
    "loss",
)
_OF_METRICS = ("recall_at_1", "map_at_r", "r_auroc", "confidence_auroc", "top1", "ece")


def description(place: str) -> dict[str, Any]:
    """What is known of an index or a model, JSON-ready.

    Args:
        place: Folder, or Hub id.

    Raises:
        FileNotFoundError, ValueError: if it is neither.
    """
    folder = Path(place)
    if (folder / MANIFEST).exists():
        return _of_index(place)
    if folder.is_dir() and not (folder / "config.json").exists():
        raise FileNotFoundError(f"{place} holds neither an index ({MANIFEST}) nor a model (config.json)")
    try:
        return _of_model(place)
    except OSError:
        if folder.is_dir():
            raise
        try:
            return _of_index(place)
        except (OSError, ValueError):
            pass
        raise


def _of_index(place: str) -> dict[str, Any]:
    index = IDMLIndex.load(place)
    gallery, reference, calibration = index.gallery, index.reference, index.calibration
    return {
        "kind": "index",
        "images": len(index),
        "classes": gallery.num_classes,
        "class_names": list(gallery.class_names),
        "dimensions": int(gallery.semantic.shape[1]),
        "metadata": {name: str(column.type) for name, column in gallery.metadata.items()},
        "model": reference.location,
        "model_revision": reference.revision,
        "weights_sha256": reference.weights,
        "engine": "flat" if index.engine is None else index.engine.settings()["kind"],
        "calibration": None
        if calibration is None
        else {
            "metric": calibration.metric,
            "error_rate": calibration.error_rate,
            "absent": calibration.absent,
            "queries": calibration.queries,
            "classes": calibration.classes,
            "confidence_auroc": calibration.auroc,
            "warnings": list(calibration.warnings),
            "table": calibration.table(),
        },
        "bytes": _bytes(place),
    }


def _of_model(place: str) -> dict[str, Any]:
    config = IDMLConfig.from_pretrained(place)
    known: dict[str, Any] = {"kind": "model", "architecture": (config.architectures or ["IDMLModel"])[0]}
    known |= {name: getattr(config, name) for name in _OF_CONFIG}
    known["image_size"] = _image_size(place, config)
    metrics = Path(place) / "metrics.json"
    if metrics.exists():
        measures = read_json(metrics)
        known["dataset"] = measures.get("dataset")
        known["protocol"] = measures.get("protocol")
        known["metrics"] = {name: measures[name] for name in _OF_METRICS if measures.get(name) is not None}
    return known | {"bytes": _bytes(place)}


def _image_size(place: str, config: IDMLConfig) -> int | None:
    try:
        size = IDMLImageProcessor.from_pretrained(place).crop_size
    except OSError:
        return config.image_size
    return int(size["height"] if isinstance(size, Mapping) else size.height)


def _bytes(place: str) -> int | None:
    """What a folder takes on the disk; None of what is elsewhere."""
    if not os.path.isdir(place):
        return None
    return sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())


def description_tables(known: Mapping[str, Any]) -> list[Table]:
    """What `description` gives, as tables for the terminal."""
    nested = ("calibration", "metrics", "class_names", "metadata")
    rows = {name: value for name, value in known.items() if name not in nested and value is not None}
    if "protocol" in rows:
        rows["protocol"] = protocol_in_words(rows["protocol"])
    rows["on disk"] = _size(rows.pop("bytes", None))
    if known["kind"] == "index":
        rows["class_names"] = listing(known["class_names"])
        rows["metadata"] = ", ".join(known["metadata"]) or "none"
        rows["calibration"] = _promise(known["calibration"])
    for name in measured(known.get("metrics", {}), *_OF_METRICS):
        rows[metric(name).title] = metric(name).text(known["metrics"][name])
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(Text(name.replace("_", " ")), Text(str(value), overflow="fold"))
    return [table] if not known.get("calibration") else [table, _promises(known["calibration"]["table"])]


def _size(number: int | None) -> str:
    return "not on this machine" if number is None else f"{number / 2**20:.1f} MiB"


def _promise(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return 'none: it cannot say "not sure" (idml-hf index ... --calibrate)'
    absent = f"{100 * calibration['absent']:g} % of the queries without their class here"
    return f"at most {100 * calibration['error_rate']:g} % wrong answers, {absent}"


def _promises(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="What can be promised", title_justify="left")
    for column in ("wrong answers at most", "queries answered", "at best, in hindsight", "confidence it takes"):
        table.add_column(column, justify="right")
    for row in rows:
        shares = [f"{100 * row[name]:.0f} %" for name in ("promise", "answered", "hindsight")]
        table.add_row(*shares, "none is enough" if row["bar"] is None else below(row["bar"]))
    return table


__all__ = ["description", "description_tables"]
