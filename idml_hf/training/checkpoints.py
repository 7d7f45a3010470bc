"""The checkpoints of a run: which one it goes on from, and whether it is still the same run."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from idml_hf.files import read_json, write_json
from idml_hf.hub.private_data import without_secrets

from .effective import portable_settings

_RECORD = "started.json"
_RETIRED = ".retired-checkpoints"


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is whole, or None.

    A run killed while it saves leaves a folder without `trainer_state.json`, which the Trainer writes last; one killed
    while it removes a checkpoint leaves one without some other part.
    """
    if not folder.is_dir():
        return None
    numbered = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    newest_first = sorted(numbered, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    return next((checkpoint for checkpoint in newest_first if is_whole(checkpoint)), None)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its weights, optimizer, schedule, random state and record, each written to its end."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for weights in _weights(checkpoint):
            # opening checks that the file is as long as its header says
            with safe_open(weights, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    states = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")]
    return len(states) > 2 and all(zipfile.is_zipfile(state) for state in states)


def _weights(checkpoint: Path) -> list[Path]:
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        return [checkpoint / Path(str(name)).name for name in set(read_json(index)["weight_map"].values())]
    return [checkpoint / "model.safetensors"]


def remove_checkpoints(folder: Path) -> None:
    """Remove the folder of a run's checkpoints. From the first moment on it does not count any more."""
    retired = folder.with_name(_RETIRED)
    # what an interrupted removal has left
    shutil.rmtree(retired, ignore_errors=True)
    if folder.is_dir():
        folder.rename(retired)
        shutil.rmtree(retired, ignore_errors=True)


def data_fingerprint(data: Any) -> dict[str, Any]:
    """What tells one training set from another: its images by number, file name and class, wherever they lie."""
    images = data.train
    digest = hashlib.sha256(images.labels.astype("<i8").tobytes())
    digest.update("\n".join(images.class_names).encode())
    digest.update("\n".join(name.rpartition("/")[2] for name in images.ids.to_pylist()).encode())
    return {"images": len(images), "classes": len(images.class_names), "sha256": digest.hexdigest()}


def record_start(folder: Path, settings: dict[str, Any], data: dict[str, Any]) -> None:
    """Note with which settings and data the run is started whose checkpoints will lie in `folder`."""
    write_json(folder / _RECORD, {"settings": without_secrets(portable_settings(settings)), "data": data})


def was_started(folder: Path) -> bool:
    """Whether a run has been started in `folder` that has not ended."""
    return (folder / _RECORD).is_file()


def check_resumed(folder: Path, settings: dict[str, Any], data: dict[str, Any]) -> None:
    """Make sure that a run goes on as it was started.

    Raises:
        ValueError: naming each setting that is another one, or saying that the training images are others.
    """
    if not was_started(folder):
        return
    started = read_json(folder / _RECORD)
    then, now = started["settings"], json.loads(json.dumps(without_secrets(portable_settings(settings))))
    changed = [f"{key} was {then[key]!r}, is {now[key]!r}" for key in now if key in then and then[key] != now[key]]
    if started["data"] != data:
        was, are = started["data"], data
        changed.append(
            f"the training data were {was['images']} images of {was['classes']} classes, are {are['images']} of "
            f"{are['classes']}" + ("" if was["images"] != are["images"] else ", with other names or classes")
        )
    if changed:
        raise ValueError(
            f"The run in {folder.parent} was started otherwise: {'; '.join(changed)}. --resume goes on with the same "
            "settings and data; --overwrite starts anew"
        )


__all__ = [
    "check_resumed",
    "data_fingerprint",
    "is_whole",
    "last_complete_checkpoint",
    "record_start",
    "remove_checkpoints",
    "was_started",
]
