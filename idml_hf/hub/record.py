"""What a run has left in its folder, as far as its model card needs it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from idml_hf.files import read_json

METRICS_FILE = "metrics.json"
RUN_FILE = "run.json"
BASELINE_FILE = "baseline_metrics.json"
PICTURES = {
    "risk_coverage.png": "Error among the most certain queries",
    "uncertainty_histogram.png": "Uncertainty of queries answered right and wrong",
    "retrieval_sheet.png": "Queries and their nearest images; green: the same class, red: another",
    "training_curve.png": "Training",
}

# settings that say where a run read and wrote, and nothing of the model
_PLACES = frozenset({"output", "root", "resume", "overwrite", "workers"})


@dataclass(frozen=True)
class RunRecord:
    """What is known of a trained model. Everything but the configuration may be empty.

    Args:
        config: the model's `config.json`.
        metrics: what was measured.
        settings: the run's settings, without its folders.
        baseline: metrics of the same run with the plain loss.
        pictures: names of the pictures that are there.
    """

    config: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """The record of a run's folder.

        Raises:
            FileNotFoundError: if it holds no `config.json`.
            ValueError: naming a file that is not the JSON it should be.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no model: it has no config.json")
        return cls(
            config=read_json(folder / "config.json"),
            metrics=read_if_there(folder / METRICS_FILE),
            settings=public_settings(read_if_there(folder / RUN_FILE)),
            baseline=read_if_there(folder / BASELINE_FILE),
            pictures=tuple(name for name in PICTURES if (folder / name).is_file()),
        )

    @property
    def is_classifier(self) -> bool:
        """Whether the model classifies images instead of embedding them."""
        return "IDMLForImageClassification" in (self.config.get("architectures") or ())

    @property
    def dataset(self) -> str | None:
        """Name of the data it was trained on; of a folder its last part."""
        name = self.settings.get("dataset") or self.metrics.get("dataset")
        return None if name is None else without_folders(str(name))


def read_if_there(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no such file."""
    return read_json(path) if path.is_file() else {}


def public_settings(run: dict[str, Any]) -> dict[str, Any]:
    """The settings in a `run.json` that may be shown to others: no folder of the machine it ran on is among them."""
    settings = run.get("run")
    if not isinstance(settings, dict):
        return {}
    return {
        key: without_folders(value) if isinstance(value, str) else value
        for key, value in settings.items()
        if key not in _PLACES
    }


def public_files(folder: Path) -> dict[str, bytes]:
    """The metrics and the settings in a folder, without the paths of the machine they come from: name -> content."""
    files: dict[str, Any] = {}
    for name in (METRICS_FILE, BASELINE_FILE):
        files[name] = {
            key: without_folders(value) if isinstance(value, str) else value
            for key, value in read_if_there(folder / name).items()
        }
    run = read_if_there(folder / RUN_FILE)
    files[RUN_FILE] = run | {"run": public_settings(run)} if run else {}
    return {name: json.dumps(content, indent=2).encode() for name, content in files.items() if content}


def without_folders(name: str) -> str:
    """A Hub id as it is; of a path its last part.

    Example:
        >>> without_folders("org/name"), without_folders("/home/me/photos"), without_folders("photos/birds/")
        ('org/name', 'photos', 'birds')
    """
    is_path = name.startswith((".", "~")) or os.path.isabs(name) or name.count("/") > 1 or "\\" in name
    return PureWindowsPath(name).name if is_path or name.endswith("/") or os.path.exists(name) else name
