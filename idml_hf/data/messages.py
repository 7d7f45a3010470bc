"""Parts of messages to people."""

from __future__ import annotations

from collections.abc import Sequence


def listing(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` names, and how many more there are.

    Example:
        >>> listing(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
