"""The code of Markdown pages: fenced blocks, in order, and what is to be done with each.

A comment on the line before a block says what a test does with it, and why:

    <!-- check: needs a server -->      its commands are only parsed
    <!-- slow -->                       run by `pytest -m slow` alone

A block with a `title` is a file of that name. All other Python and shell is run, from the top of the page to its end.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}) *(?P<language>[\w-]+)?(?P<rest>.*)$")
_WORD = re.compile(r"<!-- *(check|slow)\b.*-->")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        language: its language, or "".
        code: its text.
        line: line of its first line of code in the page, from 1.
        title: name of the file that it is, or None.
        todo: `run`, `slow` or `check`.
    """

    language: str
    code: str
    line: int
    title: str | None
    todo: str

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block: without comments, those over several lines joined."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    out: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        at += 1
        if opened is None:
            continue
        start = at
        while lines[at].strip() != opened["fence"]:
            at += 1
        word = _WORD.search(lines[start - 2]) if start > 1 else None
        title = _TITLE.search(opened["rest"])
        code = textwrap.dedent("\n".join(lines[start:at])) + "\n"
        todo = word[1] if word else "run"
        out.append(Block(opened["language"] or "", code, start + 1, title and title[1], todo))
        at += 1
    return out


def written_options(page: Path) -> set[str]:
    """The options that the prose of a page names, as `--option`."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {option for code in re.findall(r"`([^`]+)`", text) for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code)}


def split_command(command: str) -> tuple[str, list[str]] | None:
    """The script or `idml-hf` that a line of shell runs, and its arguments; None for all other programs."""
    words = shlex.split(command, comments=True)
    for at, word in enumerate(words):
        if word in ("idml-hf", "idml_hf") or word.endswith(".py"):
            end = next((i for i, w in enumerate(words) if i > at and w in ("&&", "|", ";", ">")), len(words))
            return word.replace("idml_hf", "idml-hf"), words[at + 1 : end]
    return None


def pages() -> list[Path]:
    """All pages with code that a reader may run."""
    return [README, ROOT / "training_scripts" / "README.md", *sorted(DOCS.rglob("*.md"))]
