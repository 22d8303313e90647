"""Waiting for a condition, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import Unavailable


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float = 20, every_s: float = 0.02) -> None:
    """Returns when ``condition()`` is true; raises Unavailable("WaitedTooLong") naming ``what``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Unavailable("WaitedTooLong", f"waited {timeout_s:g} s for {what}")
        time.sleep(every_s)
