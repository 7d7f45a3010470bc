"""Which files hold a model's weights: safetensors within its folder or repository, and nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from .files import read_json, readable

_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)
_CHOSEN = re.compile(r"[\w-][\w.-]*\.safetensors(\.index\.json)?", re.ASCII)


def require_safetensors(
    name: str, where: dict[str, Any], *, variant: str | None = None, chosen: str | None = None
) -> None:
    """Make sure that what transformers will read of a model are safetensors files of its own.

    It would go on to read a pickle, ask a service on the Hub to convert one, or open what an index of shards names.

    Args:
        name: Folder or Hub id.
        where: Arguments of `transformers.utils.cached_file`, as `revision` and `subfolder`.
        variant: As for `from_pretrained`.
        chosen: The file that `config.json` names as the one with the weights.

    Raises:
        FileNotFoundError: if there are no such weights.
        PermissionError: if this user may not read them.
        ValueError: if an index of shards names other files, or files elsewhere.
    """
    if chosen is not None and not _CHOSEN.fullmatch(chosen):
        raise ValueError(f"The config.json of {name} names weights outside of it, {chosen!r}: refused")
    files = (
        [chosen] if chosen else [_with_variant(file, variant) for file in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)]
    )
    for file in files:
        if os.path.isdir(name) and os.path.lexists(os.path.join(name, where.get("subfolder", ""), file)):
            readable(os.path.join(name, where.get("subfolder", ""), file))
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **where)
        if path is None:
            continue
        if file.endswith(".json"):
            sharded_names(path)
        return
    raise FileNotFoundError(f"{name} has no {files[0]}; weights in other files (pickles) are refused")


def sharded_names(index: str | Path) -> list[str]:
    """The files that an index of shards names, in order.

    Raises:
        ValueError: naming the index, if it is damaged or names anything but safetensors files beside it.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} is damaged: it has no weight_map")
    for name in weight_map.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise ValueError(f"{index} names weights in {name!r}, which is no safetensors file beside it: refused")
    return sorted(set(weight_map.values()))


def _with_variant(name: str, variant: str | None) -> str:
    if variant is None:
        return name
    stem, suffix = name.rsplit(".", 1)
    return f"{stem}.{variant}.{suffix}"


__all__ = ["require_safetensors", "sharded_names"]
