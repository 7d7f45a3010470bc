"""Recipes: YAML files that hold some settings of a run. Those of this package are found by their names."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from idml_hf.errors import did_you_mean, one_of

from .declaration import checked, declared
from .settings import Run

PACKAGED = Path(str(files("idml_hf"))) / "recipes"


def load_recipe(*paths: str | Path) -> dict[str, Any]:
    """Read a recipe: a YAML file with fields of [`Run`]; of several, later ones replace the keys of earlier ones.

    The key `base` names one or more other recipes, relative to this one, whose keys come first; mappings are merged.
    So a recipe is put together from a data set's, a loss's and a form's part.

    Args:
        paths: Files, or names of recipes that come with the package, such as `paper/cub`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown key (with a suggestion), a value of another type or out of range, a file that is
            not a YAML mapping, or recipes that are each other's base. It names the file.

    Example (a file `cub_proxy_anchor.yaml`)::

        base: [datasets/cub.yaml, losses/proxy_anchor.yaml]
        form: ratio
        epochs: 60
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merge(merged, _read_recipe(find_recipe(path), ()))
    return merged


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        FileNotFoundError: if there is neither.
    """
    path = Path(name)
    packaged = PACKAGED / path.with_suffix(".yaml")
    if path.is_file() or path.is_absolute() or not packaged.is_file() or ".." in path.parts:
        return path
    return packaged


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with the package.

    Example:
        >>> "paper/cub" in packaged_recipes()
        True
    """
    return sorted(path.relative_to(PACKAGED).with_suffix("").as_posix() for path in PACKAGED.rglob("*.yaml"))


class _Loader(yaml.SafeLoader):
    """YAML's core schema (1.2), in which 1e-4 is a number and `no` is a word."""


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _read_recipe(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in parents:
        raise ValueError(f"{parents[0]}: {path} is its own base")
    if not path.is_file():
        hint = did_you_mean(str(path), packaged_recipes()) if not path.suffix else ""
        raise FileNotFoundError(f"No recipe at {path}.{hint}")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold keys and values")
    bases = settings.pop("base", [])
    own = {key: _checked(path, key, value) for key, value in settings.items()}
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merge(merged, _read_recipe(path.parent / base, (*parents, path.resolve())))
    return _merge(merged, own)


def _checked(path: Path, key: str, value: Any) -> Any:
    try:
        one_of("recipe key", key, list(declared(Run)))
        return checked(Run, key, value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merge(first[k], v) if isinstance(v, dict) and isinstance(first.get(k), dict) else v
        for k, v in second.items()
    }
    return first | both


__all__ = ["find_recipe", "load_recipe", "packaged_recipes"]
