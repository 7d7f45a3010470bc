"""The settings that a run has in effect: its own, and for those left open the defaults of what they are handed to."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from idml_hf.configuration_idml import IDMLConfig
from idml_hf.data import SmallImages

from .arguments import ARGUMENTS
from .models import CONFIG_FIELDS, run_config
from .settings import LOCAL, Run

# unset settings that are handed to the trainer's arguments or to the transforms of images
_HANDED_ON = frozenset({"flip", "padding", "mixup", "mix", "mix_alpha", "mix_probability"})


def effective_settings(run: Run, config: IDMLConfig | None = None) -> dict[str, Any]:
    """All settings of a run, ready for JSON.

    Args:
        run: The settings.
        config: That of the model that is trained; by default the one that the run builds on a backbone.

    Example:
        >>> settings = effective_settings(Run(output="out", method="plain"))
        >>> settings["form"], settings["tau"], settings["mixup"], settings["flip"]
        ('none', 5.0, False, 0.5)
    """
    config = run_config(run) if config is None else config
    arguments = {f.name: f.default for f in dataclasses.fields(ARGUMENTS[run.task])}
    transform = {name: p.default for name, p in inspect.signature(SmallImages).parameters.items()}
    settings = dataclasses.asdict(run)
    for name, value in settings.items():
        if name in CONFIG_FIELDS:
            settings[name] = getattr(config, name)
        elif value is None and name in _HANDED_ON:
            settings[name] = arguments.get(name, transform.get(name))
    return settings | {"method": run.method or config.method}


def portable_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that make the experiment: all but those of this machine, and files by their name alone."""
    portable = {key: value for key, value in settings.items() if key not in LOCAL}
    for key in ("weights", "model", "dataset", "features", "labels"):
        if portable.get(key) and (key != "dataset" or Path(portable[key]).exists()):
            portable[key] = Path(portable[key]).name
    return portable


__all__ = ["effective_settings", "portable_settings"]
