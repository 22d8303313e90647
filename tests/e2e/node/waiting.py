"""Waiting for a condition, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from shared.errors import Unavailable

LIMIT_S: Final = 60.0
"""Nothing takes so long that comes at all, on a machine of two cores that runs two test processes."""


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float = LIMIT_S, every_s: float = 0.02) -> None:
    """Returns when ``condition()`` is true; raises Unavailable("WaitedTooLong") naming ``what``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Unavailable("WaitedTooLong", f"waited {timeout_s:g} s for {what}")
        time.sleep(every_s)
