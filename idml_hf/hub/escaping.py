"""Text that comes from elsewhere, as Markdown that shows it unchanged."""

from __future__ import annotations

import json
import re
from typing import Any


class Markdown(str):
    """Text that is Markdown already."""


def shown(value: Any) -> Markdown:
    """A value as Markdown: unless it is that already, none of its characters acts."""
    return value if isinstance(value, Markdown) else plain(value)


def plain(text: Any) -> Markdown:
    r"""Text in which no character acts as Markdown or HTML.

    Example:
        >>> print(plain("<b> my_data | a*b"))
        \<b\> my\_data \| a\*b
    """
    return Markdown(re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(str(text).split())))


def code(value: Any) -> Markdown:
    r"""A value as inline code that also fits into a table's cell.

    Example:
        >>> print(code({"lr": 0.1}), code("a|b"))
        `{"lr": 0.1}` `a\|b`
    """
    text = value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in text or not text else ""
    return Markdown(f"{fence}{pad}{text}{pad}{fence}")


__all__ = ["Markdown", "code", "plain", "shown"]
