"""How a setting is declared - its default, its help, its range - and how a value is checked against that."""

from __future__ import annotations

import math
import numbers
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields
from functools import cache
from typing import Any

from idml_hf.errors import one_of


def described(
    help: str,
    *,
    choices: Sequence[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """What a field of a settings dataclass says of itself, as its metadata.

    Args:
        help: One line for `--help`.
        choices: The values it may have.
        at_least, above, at_most, below: Its range.
        task: The only task that has this setting.
    """
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    return {"help": help, "choices": tuple(choices), "bounds": bounds, "task": task}


def option(default: Any, help: str, **further: Any) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: Its default; `None` means that whatever the setting is handed to decides.
        help, further: As for [`described`].
    """
    return field(default=default, metadata=described(help, **further))


def declared(settings: type) -> dict[str, tuple[Field, Any]]:
    """The fields of a settings dataclass by name, each with its type."""
    return _declared(settings)


@cache
def _declared(settings: Any) -> dict[str, tuple[Field, Any]]:
    hints = typing.get_type_hints(settings)
    return {f.name: (f, hints[f.name]) for f in fields(settings)}


def checked(settings: type, name: str, value: Any) -> Any:
    """The value of a setting, in its type.

    Whole numbers pass as numbers, and paths as strings; nothing else is converted.

    Raises:
        ValueError: for a value of another type, out of range, or not finite; it names the setting.

    Example:
        >>> from idml_hf.training.settings import TrainingSettings
        >>> checked(TrainingSettings, "learning_rate", 1)
        1.0
        >>> checked(TrainingSettings, "epochs", 0)
        Traceback (most recent call last):
        ...
        ValueError: epochs must be at least 1, not 0
    """
    spec, hint = declared(settings)[name]
    value = typed(name, value, hint)
    if value is None or not spec.metadata:
        return value
    if spec.metadata["choices"]:
        one_of(name, value, spec.metadata["choices"])
    tests = {
        "at_least": ("at least", lambda bound: value >= bound),
        "above": ("above", lambda bound: value > bound),
        "at_most": ("at most", lambda bound: value <= bound),
        "below": ("below", lambda bound: value < bound),
    }
    for key, bound in spec.metadata["bounds"].items():
        words, holds = tests[key]
        if bound is not None and not holds(bound):
            raise ValueError(f"{name} must be {words} {bound:g}, not {value!r}")
    return value


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, which may be a union, a list or a mapping; a type it does not know lets all pass.

    Raises:
        ValueError: if it is of another type, or a number that is not finite.
    """
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) or _is_union(hint) else (hint,)
    for kind in options:
        fits, converted = _convert(name, value, kind)
        if fits:
            return converted
    words = [_WORDS[k] for k in dict.fromkeys(typing.get_origin(o) or o for o in options) if k in _WORDS]
    raise ValueError(f"{name} must be {' or '.join(words)}, not {value!r}")


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "unset",
}


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union


def _convert(name: str, value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether the value is of this kind, and what it then is."""
    origin = typing.get_origin(kind) or kind
    if origin not in _WORDS:
        return True, value
    if origin is type(None):
        return value is None, None
    if origin is bool:
        return isinstance(value, bool), value
    if origin in (int, float):
        wanted = numbers.Integral if origin is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, wanted):
            return False, None
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, not {value!r}")
        return True, origin(value)
    if origin is str:
        return isinstance(value, (str, os.PathLike)), str(value)
    if origin is list:
        return isinstance(value, list), value
    return isinstance(value, Mapping), dict(value) if isinstance(value, Mapping) else None


__all__ = ["checked", "declared", "described", "option", "typed"]
