"""Command-line options made from the fields of a settings dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any

import typer

from idml_hf.training.declaration import declared


def options_from(settings: type, panels: Mapping[str, type] | None = None) -> Callable[[Callable], Callable]:
    """Give a typer command one option for each field of a dataclass; unset ones arrive as None.

    A field's help and default are shown; a mapping is given as JSON. The command takes the options as `**options`.

    Args:
        settings: The dataclass.
        panels: Title in `--help` -> the base class of `settings` whose options stand under it.
    """

    def decorate(command: Callable) -> Callable:
        hints = typing.get_type_hints(command, include_extras=True)
        signature = inspect.signature(command)
        parameters = [
            p.replace(annotation=hints[p.name])
            for p in signature.parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        for name, (field, hint) in declared(settings).items():
            kind, is_mapping = _kind(hint)
            flag = f"--{name.replace('_', '-')}"
            option = typer.Option(
                f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
                help=field.metadata["help"] + (" (JSON)" if is_mapping else ""),
                show_default=_shown(field.default),
                rich_help_panel=next((t for t, part in (panels or {}).items() if name in declared(part)), None),
            )
            annotation = typing.Annotated[kind | None, option]  # type: ignore[valid-type]
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            )
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return command

    return decorate


def _shown(default: Any) -> str | bool:
    """What `--help` says of a default; nothing of those that leave something open or out."""
    unset = default in (None, "", False, dataclasses.MISSING)
    return False if unset else str(default)


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
    mappings = {name for name, (_, hint) in declared(settings).items() if _kind(hint)[1]}
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


__all__ = ["given", "options_from"]
