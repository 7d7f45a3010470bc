"""Which checkpoint a run goes on from."""

from __future__ import annotations

import json
from pathlib import Path


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that was written to the end, or None.

    The Trainer writes `trainer_state.json` last; a run killed while it saves leaves a folder without it, or with half
    of it, beside the checkpoint before.
    """
    if not folder.is_dir():
        return None
    numbered = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    for checkpoint in sorted(numbered, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return checkpoint
    return None


__all__ = ["last_complete_checkpoint"]
