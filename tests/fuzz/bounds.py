"""Bounds on what one input may cost, so that a parser that runs away fails instead of taking the machine along."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MEMORY_BYTES: Final = 512 << 20
"""Above what the process already has."""
CPU_S: Final = 20.0


class RanAway(BaseException):
    """No Exception: a parser that catches everything must not catch this."""


@contextmanager
def bounded(memory_bytes: int = MEMORY_BYTES, cpu_s: float = CPU_S) -> Iterator[None]:
    """Within it, more memory is a MemoryError and more processor time RanAway. Main thread only."""

    def stop(*_: object) -> None:
        raise RanAway(f"more than {cpu_s:g} s of processor time")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory_bytes, hard))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)
