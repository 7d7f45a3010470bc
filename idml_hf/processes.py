"""The processes of one launch, by `accelerate launch` or `torchrun`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState


def launched_processes() -> int:
    """How many processes were launched together.

    Raises:
        ValueError: if the environment variable WORLD_SIZE is no number.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"WORLD_SIZE should be the number of processes that were launched, not {text!r}")
    return int(text)


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes; known before the processes have joined."""
    return os.environ.get("RANK", "0") == "0"


def join_processes(cpu: bool = False) -> PartialState:
    """Join the processes that were launched together; on processors where there is no GPU for them.

    accelerate by itself only joins processes without a GPU if it is told so. Without that, each of them would do all
    of the work, and write over the others' files.

    Args:
        cpu: Compute on processors even where there is a GPU.

    Raises:
        ValueError: if fewer processes have joined than were launched.
    """
    from accelerate import PartialState

    launched = launched_processes()
    state = PartialState(cpu=cpu) if cpu else PartialState()
    if state.num_processes == 1 and launched > 1:
        PartialState._reset_state()
        # what is built later, by transformers' arguments for one, looks there
        os.environ["ACCELERATE_USE_CPU"] = "true"
        state = PartialState(cpu=True)
    if state.num_processes != launched:
        raise ValueError(
            f"WORLD_SIZE says that {launched} processes were launched, but {state.num_processes} have joined: each "
            "would do all of the work and write over the others' files"
        )
    return state


__all__ = ["is_first_process", "join_processes", "launched_processes"]
