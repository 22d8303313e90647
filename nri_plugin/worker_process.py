"""The worker as the session sees it: a child that is kept alive, given jobs, and listened to.

nri_plugin/worker.py has what goes over the socket between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import time
from typing import Any

from nri_plugin.config import Config
from nri_plugin.metrics import Metrics
from shared.errors import Refused, RestoreError, Unavailable

log = logging.getLogger(__name__)

LINE_LIMIT_BYTES = 8 << 20
TICK_S = 0.02
RESTART_DELAY_S = 0.2
MAX_RESTART_DELAY_S = 10.0
"""A worker that dies again and again is started less and less often; one that lived longer than this is not that."""
PING_S = 5.0
"""How often the worker is asked whether it is there."""
PINGS_MISSED, PINGS_MISSED_AT_START = 3, 12
"""How many in a row may stay unanswered. Counted, not timed: a node that was paused has not missed any."""


class WorkerProcess:
    """The worker as a child, started again when it dies; jobs sent meanwhile wait for the next one."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self.metrics = metrics
        self.config = config
        """Handed to every new worker: the file may have become another, or unusable, since it was read."""
        self.answers: dict[str, asyncio.Future[RestoreError | None]] = {}
        self.writer: asyncio.StreamWriter | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.started_at = 0.0
        """When the worker was started, as a Unix time: plans made later are its jobs, read already or not."""
        self.reconciles = False
        """Whether a new worker begins by looking for what was missed: once the runtime has been there."""
        self.heard = asyncio.Event()
        self.heard_at = time.monotonic()

    async def run(self) -> None:
        delay_s = RESTART_DELAY_S
        while True:
            began = time.monotonic()
            # Files are stamped with the kernel's last tick, which is a little earlier (current_time, fs/inode.c).
            self.started_at = time.time() - TICK_S
            ours, theirs = socket.socketpair()
            with theirs:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "nri_plugin.process",
                    "worker",
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                )
            reader, self.writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT_BYTES)
            self.metrics.worker_starts += 1
            self.configure(self.config)
            if self.reconciles:
                self.reconcile()
            watching = asyncio.create_task(self._watch(self.process))
            try:
                while line := await reader.readline():
                    self._answered(line)
            except ConnectionError:
                pass
            except ValueError as error:
                log.error("the worker sent what is no answer: %s", error)
            finally:
                watching.cancel()
                self.writer.close()
                self.writer = None
                status = await self._end()
            log.error("the worker ended with status %s; starting another", status)
            lost = Unavailable("WorkerLost", "the restore worker ended while it checked this container; try again")
            for waiting in self.answers.values():
                if not waiting.done():
                    waiting.set_result(lost)
            if time.monotonic() - began > MAX_RESTART_DELAY_S:
                delay_s = RESTART_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Ends a worker that does not answer any more, so that another takes its place."""
        missed, allowed = 0, PINGS_MISSED_AT_START
        while missed < allowed:
            self.heard.clear()
            self.send({"job": "ping"})
            try:
                await asyncio.wait_for(self.heard.wait(), PING_S)
            except TimeoutError:
                missed += 1
                continue
            self.heard_at = time.monotonic()
            missed, allowed = 0, PINGS_MISSED
            await asyncio.sleep(PING_S)
        log.error("the worker does not answer; it is ended")
        process.kill()

    async def _end(self) -> int | None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        return await self.process.wait()

    def _answered(self, line: bytes) -> None:
        """Raises ValueError for what is no answer."""
        match json.loads(line):
            case {"alive": True, "plans": dict(plans), "oldest_s": float(oldest_s)}:
                self.metrics.plans, self.metrics.oldest_s = plans, oldest_s
                self.heard.set()
                return
            case {"result": str(result), "reason": str(reason), "phases": dict(phases)}:
                self.metrics.told(result, reason, phases)
                return
            case {"cleaned": int(count)}:
                self.metrics.cleaned += count
                return
            case {"container_id": str(container_id), "reason": None}:
                verdict = None
            case {"container_id": str(container_id), "reason": str(reason), "sentence": str(sentence)}:
                verdict = Refused(reason, sentence)
            case _:
                raise ValueError(repr(line[:200]))
        waiting = self.answers.get(container_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(verdict)

    def send(self, job: dict[str, Any]) -> None:
        if self.writer is None:
            log.warning("no worker for the job %s; it is made up for when the next one starts", job["job"])
            return
        self.writer.write(json.dumps(job).encode() + b"\n")

    def configure(self, config: Config) -> None:
        """Has the worker, and those after it, go by ``config`` from the next container on."""
        self.config = config
        self.send({"job": "configure", "config": config.document()})

    def reconcile(self) -> None:
        """Has the worker look for what was missed."""
        self.send({"job": "reconcile", "since": self.started_at})

    async def prepare(self, request: dict[str, Any], container_id: str, timeout_s: float) -> RestoreError | None:
        """The verdict of the quick checks; None also when they take longer than ``timeout_s``."""
        if self.writer is None:
            return Unavailable("WorkerLost", "the restore worker is being started again; try again")
        waiting = asyncio.get_running_loop().create_future()
        self.answers[container_id] = waiting
        try:
            self.send({"job": "prepare", "request": request})
            return await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            return None
        finally:
            self.answers.pop(container_id, None)
