"""Text that comes from elsewhere, as Markdown that shows it unchanged."""

from __future__ import annotations

import json
import re
from typing import Any


def plain(text: Any) -> str:
    r"""Text in which no character acts as Markdown or HTML.

    Example:
        >>> print(plain("<b> my_data | a*b"))
        \<b\> my\_data \| a\*b
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(str(text).split()))


def code(value: Any) -> str:
    r"""A value as inline code that also fits into a table's cell.

    Example:
        >>> print(code({"lr": 0.1}), code("a|b"))
        `{"lr": 0.1}` `a\|b`
    """
    text = value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in text or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


__all__ = ["code", "plain"]
