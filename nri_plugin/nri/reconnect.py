"""Keeps a session connected, without ever hurrying the runtime.

Every registration makes a runtime of NRI 0.7 or newer hold all pod and container calls of the node until those under
way have ended (its plugin sync lock), so a plugin that reconnects fast stalls the node.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from nri_plugin.nri.session import Session
from nri_plugin.nri.versions import Runtime
from shared.errors import RestoreError

log = logging.getLogger(__name__)


async def run_forever(
    session: Session,
    *,
    first_backoff_s: float = 1.0,
    max_backoff_s: float = 60.0,
    jitter: float = 0.3,
    on_connected: Callable[[Runtime], None] | None = None,
    on_lost: Callable[[RestoreError | None], None] | None = None,
) -> None:
    """Runs ``session`` again and again; returns after ``session.close()``.

    While nobody listens on the socket (the runtime is not up) it looks every ``first_backoff_s``, which costs the
    runtime nothing. After a connection that was refused or lost it waits twice as long as the time before, up to
    ``max_backoff_s``, each wait made longer or shorter by up to ``jitter`` of itself; a connection that held longer
    than ``max_backoff_s``, and a runtime that was down, start over. ``on_connected`` is called when events come in;
    ``on_lost`` whenever an attempt or a connection ends, with None when the runtime ended one that had been ready.
    """
    loop = asyncio.get_running_loop()
    backoff_s = first_backoff_s
    unreachable = False
    while not session.closing:
        ready_at: float | None = None

        def ready(runtime: Runtime) -> None:
            nonlocal ready_at
            ready_at = loop.time()
            log.info("connected to %s %s, NRI %s", runtime.name, runtime.version, ".".join(map(str, runtime.nri)))
            if on_connected is not None:
                on_connected(runtime)

        error: RestoreError | None = None
        try:
            await session.run_once(ready)
        except RestoreError as failure:
            error = failure
        if session.closing:
            break
        if error is None or error.reason != "NriUnreachable" or not unreachable:
            log.warning("not connected to the runtime: %s", error or "it ended the connection")
        unreachable = error is not None and error.reason == "NriUnreachable"
        if on_lost is not None:
            on_lost(error)
        if unreachable:
            wait_s = backoff_s = first_backoff_s
        else:
            if ready_at is not None and loop.time() - ready_at > max_backoff_s:
                backoff_s = first_backoff_s
            wait_s = backoff_s
            backoff_s = min(backoff_s * 2, max_backoff_s)
        await session.wait_closing(wait_s * random.uniform(1 - jitter, 1 + jitter))
