"""The code that a repository carries for those who have not installed idml_hf."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import timm
from transformers.dynamic_module_utils import get_relative_import_files

import idml_hf.architectures  # noqa: F401  # registers what timm lacks
from idml_hf.files import read_json

from .record import RunRecord

_LICENCE = b"# Part of idml_hf. SPDX-License-Identifier: Apache-2.0\n"


def remote_code_files(folder: str | Path) -> dict[str, bytes]:
    """What to add to a model's files so that `trust_remote_code=True` loads it where idml_hf is not installed.

    The modules that define configuration, model and image processor, as they are installed here, and the two JSON
    files with the entry that names them. Nothing is written to the folder.

    Args:
        folder: a saved model with its image processor.

    Returns:
        Name -> content.

    Raises:
        ValueError: for a trunk that timm does not have by itself, since its code would be missing.
    """
    folder = Path(folder)
    record = RunRecord.read(folder)
    backbone = record.config.get("backbone", "").split(".")[0]
    if timm.is_model(backbone) and timm.model_entrypoint(backbone).__module__.split(".")[0] != "timm":
        raise ValueError(f"{backbone} is an architecture of idml_hf, not of timm: push it without its code")
    if record.is_classifier:
        model = {"AutoModelForImageClassification": "modeling_idml.IDMLForImageClassification"}
    else:
        model = {"AutoModel": "modeling_idml.IDMLModel"}
    config = {"AutoConfig": "configuration_idml.IDMLConfig", **model}
    processor = {"AutoImageProcessor": "image_processing_idml.IDMLImageProcessor"}
    return {
        **_modules(),
        "config.json": _with_entry(folder / "config.json", config),
        "preprocessor_config.json": _with_entry(folder / "preprocessor_config.json", processor),
    }


def _modules() -> dict[str, bytes]:
    # by their paths, since what stands below the model does not import it
    roots = [_path(name) for name in ("configuration_idml", "modeling_idml", "image_processing_idml")]
    paths = {path for root in roots for path in (root, *get_relative_import_files(root))}
    return {Path(path).name: _LICENCE + Path(path).read_bytes() for path in sorted(paths)}


def _path(name: str) -> str:
    spec = importlib.util.find_spec(f"idml_hf.{name}")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"This installation of idml_hf lacks the file {name}.py")
    return spec.origin


def _with_entry(path: Path, auto_map: dict[str, str]) -> bytes:
    return json.dumps({**read_json(path), "auto_map": auto_map}, indent=2, sort_keys=True).encode() + b"\n"


__all__ = ["remote_code_files"]
