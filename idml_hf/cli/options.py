"""Command-line options made from the fields of a dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable
from typing import Any

import typer


def options_from(settings: type) -> Callable[[Callable], Callable]:
    """Give a typer command one option for each field of a dataclass; unset ones arrive as None.

    A field's help and default are shown; a mapping is given as JSON. The command takes the options as `**options`.
    """
    types = typing.get_type_hints(settings)

    def decorate(command: Callable) -> Callable:
        hints = typing.get_type_hints(command, include_extras=True)
        signature = inspect.signature(command)
        parameters = [
            p.replace(annotation=hints[p.name])
            for p in signature.parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        for field in dataclasses.fields(settings):
            kind, is_mapping = _kind(types[field.name])
            flag = f"--{field.name.replace('_', '-')}"
            default = None if is_mapping or kind is bool or field.default in ("", None) else str(field.default)
            option = typer.Option(
                f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
                help=field.metadata["help"] + (" (JSON)" if is_mapping else ""),
                show_default=default or False,
            )
            annotation = typing.Annotated[kind | None, option]  # type: ignore[valid-type]
            parameters.append(
                inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            )
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return command

    return decorate


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of an option's value, and whether the field is a mapping."""
    if typing.get_origin(hint) is dict:
        return str, True
    return next((t for t in typing.get_args(hint) if t is not type(None)), hint), False


def given(settings: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, with mappings read from JSON.

    Raises:
        typer.BadParameter: for a mapping that is not a JSON object.
    """
    mappings = {f.name for f in dataclasses.fields(settings) if str(f.type).startswith("dict")}
    out = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in mappings:
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise typer.BadParameter(f"--{name.replace('_', '-')} is not JSON: {error}") from None
            if not isinstance(value, dict):
                raise typer.BadParameter(f"--{name.replace('_', '-')} must be a JSON object")
        out[name] = value
    return out
