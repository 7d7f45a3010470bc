"""Losses and data sets from outside of the package: a module's, named as `module:name`, or an installed package's.

Only what the user of this machine names is imported; no configuration or recipe that came with a model is.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib.metadata import entry_points
from typing import Any

LOSSES = "idml_hf.losses"
"""Group of entry points: name -> a subclass of [`idml_hf.losses.MetricLoss`]."""
DATASETS = "idml_hf.datasets"
"""Group of entry points: name -> a function, see [`~idml_hf.data.load_retrieval_data`]."""

_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


def is_plugin_name(name: str) -> bool:
    """Whether this has the form `module:name`.

    Example:
        >>> is_plugin_name("my_module:MyLoss"), is_plugin_name("org/name"), is_plugin_name("C:/photos")
        (True, False, False)
    """
    return _NAME.fullmatch(name) is not None


def imported(name: str) -> Any:
    """What `module:name` names; the module may lie in the working folder.

    Raises:
        ImportError: if there is no such module, or it has nothing of that name.
    """
    module_name, _, attribute = name.partition(":")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, module_name.partition(".")[0]):
            raise
        raise ImportError(f"{name}: there is no module {module_name}, here or installed") from error
    if not hasattr(module, attribute):
        raise ImportError(f"{name}: module {module_name} has no {attribute}")
    return getattr(module, attribute)


def installed(group: str, name: str) -> Any:
    """What an installed package offers under a name, or None."""
    found = list(entry_points(group=group, name=name))
    return found[0].load() if found else None


def installed_names(group: str) -> list[str]:
    """The names under which installed packages offer something."""
    return sorted({entry.name for entry in entry_points(group=group)})


__all__ = ["DATASETS", "LOSSES", "imported", "installed", "installed_names", "is_plugin_name"]
