"""Work in a child process that dies, or has its disk full, at a file operation of one's choice.

Python tells an audit hook of each file that is opened, renamed or removed, whoever asks for it. What native code
writes by itself is not told; kills at random times and a limit of the file size, which the kernel keeps, cover that.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


_running: list[int] = []


def kill_child() -> None:
    """Kill the child that runs now, from another thread."""
    os.kill(_running[-1], signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Args:
        status: `"done"`, `"error"`, `"killed"` or `"hung"`.
        operations: File operations it has made, if it came to its end.
        error: Type and message of its error.
        trace: The same with its lines.
        seconds: How long it took.
        printed: What it said.
    """

    status: str
    operations: int = 0
    error: str = ""
    trace: str = ""
    seconds: float = 0.0
    printed: str = ""


def in_child(
    work: Callable[[], object],
    folder: Path,
    *,
    kill_at: int | None = None,
    full_at: int | None = None,
    kill_after: float | None = None,
    largest_file: int | None = None,
    memory: int | None = None,
    timeout: float = 120.0,
) -> Ended:
    """Run `work` in a fork of this process.

    Args:
        work: What to do.
        folder: Whose files count; operations elsewhere are let through.
        kill_at: Number of the file operation before which the child is killed, from 0.
        full_at: Number of the write from which on the disk is full: space can only be set free.
        kill_after: Seconds after which the child is killed, wherever it is.
        largest_file: Bytes after which a write fails, in native code too.
        memory: Bytes of address space that the child may have beyond what it has at its start.
        timeout: Seconds after which it counts as hung.
    """
    report, out = os.pipe(), os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(report[0])
            os.close(out[0])
            os.dup2(out[1], 1)
            os.dup2(out[1], 2)
            os.setsid()
            _child(work, folder, kill_at, full_at, largest_file, memory, report[1])
        finally:
            os._exit(70)
    _running.append(pid)
    os.close(report[1])
    os.close(out[1])
    said: dict[int, bytes] = {}
    readers = [
        threading.Thread(target=lambda end=end: said.update({end: _all_of(end)})) for end in (report[0], out[0])
    ]
    for reader in readers:
        reader.start()
    killed = _wait(pid, started, kill_after, timeout)
    for reader in readers:
        reader.join(10)
    printed = said.get(out[0], b"").decode(errors="replace")
    seconds = time.monotonic() - started
    if killed == "hung":
        return Ended("hung", seconds=seconds, printed=printed)
    if not said.get(report[0]):
        return Ended("killed", seconds=seconds, printed=printed)
    return Ended(**json.loads(said[report[0]]), seconds=seconds, printed=printed)


def _wait(pid: int, started: float, kill_after: float | None, timeout: float) -> str:
    status = "ended"
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        passed = time.monotonic() - started
        if status == "ended" and kill_after is not None and passed > kill_after:
            status = "killed"
            os.kill(pid, signal.SIGKILL)
        elif status == "ended" and passed > timeout:
            status = "hung"
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    return status


def _all_of(end: int) -> bytes:
    with os.fdopen(end, "rb") as file:
        return file.read()


def _child(
    work: Callable[[], object],
    folder: Path,
    kill_at: int | None,
    full_at: int | None,
    largest_file: int | None,
    memory: int | None,
    report: int,
) -> None:
    roots = {str(folder), os.path.realpath(folder)}
    count = 0

    def within(path: object) -> bool:
        return isinstance(path, (str, bytes, os.PathLike)) and os.path.abspath(os.fsdecode(path)).startswith(
            tuple(roots)
        )

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if not (writes or event in CHANGES) or not any(within(path) for path in arguments[:2]):
            return
        if kill_at is not None and count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        number, count = count, count + 1
        frees = event in ("os.remove", "os.rmdir", "shutil.rmtree", "os.rename")
        if full_at is not None and number >= full_at and not frees:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(arguments[0]))

    sys.addaudithook(watch)
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    if memory is not None:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + memory, resource.RLIM_INFINITY))
    answer = {"status": "done", "error": "", "trace": ""}
    try:
        work()
    except SystemExit as ended:
        answer |= {"status": "done" if not ended.code else "error", "error": f"exit {ended.code}"}
    except BaseException as error:
        answer = {"status": "error", "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(report, "w") as file:
        json.dump(answer | {"operations": count}, file)
    os._exit(0)


__all__ = ["Ended", "in_child", "kill_child"]
