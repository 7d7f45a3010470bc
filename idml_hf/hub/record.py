"""What a run has left in its folder, as far as its model card needs it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from idml_hf.configuration_idml import VECTORS
from idml_hf.files import read_json
from idml_hf.metric_names import parse

from .private_data import without_folders, without_private_data, without_secrets

CARD_FILE = "README.md"
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
# settings that may be the name of a repository on the Hub, or of a folder that looks the same
_REPOSITORIES = {"model": "model", "dataset": "dataset"}
# what metrics.json says in words
_TEXTS = frozenset({"dataset", "protocol", "split", "trunk_weights"})
# files that nearly every repository has, by its kind
_ALWAYS = {"model": ("config.json",), "dataset": ("README.md", ".gitattributes")}
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


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
        run = read_if_there(folder / RUN_FILE)
        return cls(
            config=without_private_data(read_json(folder / "config.json")),
            metrics=public_metrics(folder / METRICS_FILE, run),
            settings=public_settings(run),
            baseline=public_metrics(folder / BASELINE_FILE, run),
            pictures=tuple(name for name in PICTURES if (folder / name).is_file()),
        )

    @property
    def is_classifier(self) -> bool:
        """Whether the model classifies images instead of embedding them."""
        return "IDMLForImageClassification" in _strings(self.config.get("architectures"))

    @property
    def takes_vectors(self) -> bool:
        """Whether the model takes vectors and no images."""
        return self.config.get("backbone") == VECTORS

    @property
    def dataset(self) -> str | None:
        """Name of the data it was trained on; of a folder its last part."""
        name = self.settings.get("dataset") or self.metrics.get("dataset")
        return None if name is None else without_folders(str(name))


def read_if_there(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no such file."""
    return read_json(path) if path.is_file() else {}


def run_record(settings: Mapping[str, Any], log: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The content of `run.json`: the settings of a run, without secrets, and its training log.

    It also notes which settings name repositories on the Hub, since later nobody can tell them from folders.
    """
    names = {key: str(settings.get(key)) for key in _REPOSITORIES}
    on_hub = [key for key, name in names.items() if _HUB_ID.fullmatch(name) and not os.path.exists(name)]
    return {"run": without_secrets(dict(settings)), "on_hub": on_hub, **more, "log": log}


def public_settings(run: dict[str, Any]) -> dict[str, Any]:
    """The settings in a `run.json` that may be shown to others: no secret, no folder of the machine it ran on."""
    settings = run.get("run")
    if not isinstance(settings, dict):
        return {}
    return _public({key: value for key, value in settings.items() if key not in _PLACES}, run)


def public_metrics(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The metrics in a file that may be shown to others; none if there is no such file.

    Args:
        path: A `metrics.json`.
        run: The `run.json` beside it.

    Raises:
        ValueError: naming the file and the key, if a metric is no number.
    """
    metrics = read_if_there(path)
    for key, value in metrics.items():
        if key == "loss":
            continue  # in some files its name, in others its value; no card shows it
        kinds, kind = ((str,), "text") if key in _TEXTS else ((int, float), "number")
        if (key in _TEXTS or parse(key) is not None) and not isinstance(value, (*kinds, NoneType)):
            raise ValueError(f"{path} is damaged: {key} is {str(value)[:80]!r}, which is no {kind}")
    return _public(metrics, run)


def public_files(folder: Path) -> dict[str, bytes]:
    """The metrics and the settings in a folder, fit to be shown to others: name -> content."""
    run = read_if_there(folder / RUN_FILE)
    files: dict[str, Any] = {name: public_metrics(folder / name, run) for name in (METRICS_FILE, BASELINE_FILE)}
    files[RUN_FILE] = without_private_data(run) | {"run": public_settings(run)} if run else {}
    return {name: json.dumps(content, indent=2).encode() for name, content in files.items() if content}


def _public(values: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    public = {}
    for key, value in without_secrets(values).items():
        if key in _REPOSITORIES and isinstance(value, str) and "/" in value and not _on_hub(key, value, run):
            value = without_folders(f"./{value}")
        public[key] = _without_folders(value)
    return without_private_data(public)


def _without_folders(value: Any) -> Any:
    """A setting in which each text that is a path is its last part."""
    if isinstance(value, dict):
        return {key: _without_folders(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_without_folders(content) for content in value]
    return without_folders(value) if isinstance(value, str) else value


def _on_hub(key: str, name: str, run: dict[str, Any]) -> bool:
    """Whether a setting is known to name a repository, since the run noted it or its files came from there."""
    if not _HUB_ID.fullmatch(name) or os.path.exists(name):
        return False
    if isinstance(run.get("on_hub"), list):
        return key in run["on_hub"]
    kind = _REPOSITORIES[key]
    try:
        return any(isinstance(try_to_load_from_cache(name, file, repo_type=kind), str) for file in _ALWAYS[kind])
    except HFValidationError:
        return False


def _strings(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
