"""Registers the IDML classes with transformers' Auto classes, when those are imported.

Importing the Auto classes takes seconds, so `import idml_hf` does not do it; it waits for whoever does.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType


def _register_config(auto: ModuleType) -> None:
    from .configuration_idml import IDMLConfig

    auto.AutoConfig.register("idml", IDMLConfig, exist_ok=True)


def _register_models(auto: ModuleType) -> None:
    from .configuration_idml import IDMLConfig
    from .modeling_idml import IDMLForImageClassification, IDMLModel

    auto.AutoModel.register(IDMLConfig, IDMLModel, exist_ok=True)
    auto.AutoModelForImageClassification.register(IDMLConfig, IDMLForImageClassification, exist_ok=True)


def _register_processor(auto: ModuleType) -> None:
    from .configuration_idml import IDMLConfig
    from .image_processing_idml import IDMLImageProcessor

    auto.AutoImageProcessor.register(
        IDMLConfig, image_processor_classes={"torchvision": IDMLImageProcessor}, exist_ok=True
    )


_AUTO = "transformers.models.auto."
_REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    f"{_AUTO}configuration_auto": _register_config,
    f"{_AUTO}modeling_auto": _register_models,
    f"{_AUTO}image_processing_auto": _register_processor,
}


class _RegisterAfterImport(importlib.abc.MetaPathFinder):
    """Finds the Auto modules as usual, and registers our classes once such a module has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        register = _REGISTRATIONS.get(fullname)
        if register is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            register(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register_auto_classes() -> None:
    """Register with the Auto modules that are imported already, and with the others as soon as they are."""
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register(sys.modules[name])
    sys.meta_path.insert(0, _RegisterAfterImport())
