"""Processes by identity: an id and the start time, which together are never used twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.e2e.node.waiting import LIMIT_S


def identity(pid: int) -> str | None:
    """``PID STARTTIME`` of a live process (proc(5), stat field 22), None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else f"{pid} {fields[19]}"


def own_identity() -> str:
    own = identity(os.getpid())
    assert own is not None
    return own


def lives(record: str) -> bool:
    """Whether the process that ``identity`` once described still runs."""
    return bool(record) and identity(int(record.split()[0])) == record


def kill(record: str, *, limit_s: float = LIMIT_S) -> None:
    """Kills the process and waits until it is gone; nothing happens when it is already.

    Raises TimeoutError.
    """
    deadline = time.monotonic() + limit_s
    while lives(record):
        try:
            os.kill(int(record.split()[0]), signal.SIGKILL)
        except ProcessLookupError:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {record.split()[0]} does not die")
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
