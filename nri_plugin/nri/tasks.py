"""Background tasks that keep the order of events for each container and pod."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class OrderedTasks:
    """Runs coroutines of the same key one after another, of different keys side by side, in order of their start."""

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        """``failed`` gets a name and the exception of each task that ended with one."""
        self._failed = failed
        self._last: dict[str, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def start(self, key: str, name: str, function: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Starts ``function`` once the last one of ``key`` has ended, however that ended."""
        before = self._last.get(key)
        task = asyncio.get_running_loop().create_task(self._run(before, name, function), name=f"nri {name}")
        self._last[key] = task
        self._running.add(task)

        def forget(done: asyncio.Task[None]) -> None:
            self._running.discard(done)
            if self._last.get(key) is done:
                del self._last[key]

        task.add_done_callback(forget)
        return task

    async def finish(self, timeout_s: float) -> None:
        """Waits for all, those started meanwhile included; past ``timeout_s`` cancels what is left and waits for it."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._running:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            await asyncio.wait(self._running, timeout=left_s)
        rest = list(self._running)
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)

    async def _run(self, before: asyncio.Task[None] | None, name: str, function: Callable[[], Awaitable[None]]) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        try:
            await function()
        except Exception as error:
            self._failed(name, error)
