"""What is wrong in a labelled collection: wrong labels, copies, ambiguous and foreign pictures, and unusable ones.

The room is callable: [`idml_hf.audit.collection.audit`] is what `idml_hf.audit(images)` runs.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .collection import Audit, audit
from .cross_fitting import cross_fit
from .expected_precision import expected_precision
from .findings import KINDS, Finding


class _Callable(ModuleType):
    """This module, called as the function of the same name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return audit(*args, **options)


sys.modules[__name__].__class__ = _Callable

__all__ = ["KINDS", "Audit", "Finding", "audit", "cross_fit", "expected_precision"]
