"""The daemon: the session process, which answers the runtime, and the worker process it keeps alive.

The session never blocks: an ordinary container is answered inside the NRI library's read; for one of ours it waits at
most ``limits.answer_s`` for the worker's quick checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nri_plugin.config import Config, load
from nri_plugin.notify import Notifier
from nri_plugin.nri.nri_pb2 import Container, ContainerAdjustment, PodSandbox
from nri_plugin.nri.reconnect import run_forever
from nri_plugin.nri.session import Session
from nri_plugin.nri.versions import Runtime
from nri_plugin.restore.options import CRIU_CONFIG_ANNOTATION
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.request import concerns_us, request_of
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
WORKER_SILENT_S = 90.0
"""A worker that did not answer for so long in spite of being replaced: the service manager's watchdog takes over."""


class WorkerProcess:
    """The worker as a child, started again when it dies; jobs sent meanwhile wait for the next one."""

    def __init__(self, config_path: Path) -> None:
        self.config_path = config_path
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
                    str(self.config_path),
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                )
            reader, self.writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT_BYTES)
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
            case {"alive": True}:
                self.heard.set()
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


class RestoreHandler:
    """What the NRI session calls; see nri_plugin.nri.handler.Handler."""

    def __init__(self, config: Config, worker: WorkerProcess) -> None:
        self.config = config
        self.worker = worker

    def owns(self, pod: PodSandbox, container: Container) -> bool:
        return concerns_us(pod, container, self.config.runtime.handler)

    async def create_container(self, pod: PodSandbox, container: Container) -> ContainerAdjustment:
        try:
            return await self._decide(pod, container)
        except RestoreError:
            raise
        except Exception as error:
            log.exception("deciding about %s failed", container.id[:12])
            raise Unavailable("Internal", f"nri-restore failed: {type(error).__name__}: {error}") from error

    async def _decide(self, pod: PodSandbox, container: Container) -> ContainerAdjustment:
        request = request_of(pod, container, self.config.runtime.handler)
        plan = Plan(self.config.paths.plans, container.id)
        plan.create(request)
        verdict = await self.worker.prepare(json.loads(request.to_json()), container.id, self.config.limits.answer_s)
        if verdict is not None:
            raise verdict
        return ContainerAdjustment(annotations={CRIU_CONFIG_ANNOTATION: str(plan.path / "criu.conf")})

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        self.worker.reconciles = True
        self.worker.reconcile()

    async def stop_container(self, pod: PodSandbox, container: Container) -> None:
        if self.owns(pod, container):
            self.worker.send({"job": "stop", "container_id": container.id})

    async def remove_container(self, pod: PodSandbox, container: Container) -> None:
        if self.owns(pod, container):
            self.worker.send({"job": "remove", "container_id": container.id})

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        if pod.runtime_handler == self.config.runtime.handler:
            self.worker.send({"job": "stop_pod", "pod_id": pod.id})

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        """Not subscribed to."""


def only_instance(config: Config) -> int:
    """Locks the node for this process: two would undo each other.

    Raises Unavailable: AlreadyRunning, NodeStorageFailed.
    """
    try:
        config.paths.plans.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(config.paths.plans / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(
            "NodeStorageFailed", f"{config.paths.plans} cannot be written: {error.strerror}; see paths.plans"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Unavailable("AlreadyRunning", "another nri-restore runs on this node; stop it first") from error
    return descriptor


async def beat(notifier: Notifier, worker: WorkerProcess) -> None:
    """Tells the service manager's watchdog that the daemon works, as long as the worker does too."""
    while notifier.watchdog_s is not None:
        if time.monotonic() - worker.heard_at < WORKER_SILENT_S:
            notifier.send("WATCHDOG=1")
        await asyncio.sleep(notifier.watchdog_s / 3)


async def serve(config: Config, config_path: Path) -> None:
    """Runs until SIGTERM or SIGINT.

    Ready before the runtime is there: it may be ordered after this service, or be down for long.
    """
    notifier = Notifier()
    worker = WorkerProcess(config_path)
    session = Session(config.nri.socket, config.nri.name, config.nri.index, RestoreHandler(config, worker))
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        notifier.send("STOPPING=1")
        stopping.append(loop.create_task(session.close()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    def connected(runtime: Runtime) -> None:
        version = ".".join(map(str, runtime.nri))
        notifier.status(f"connected to {runtime.name} {runtime.version}, NRI {version}")

    def lost(error: RestoreError | None) -> None:
        notifier.status(f"not connected to the runtime: {error or 'it ended the connection'}")

    working = loop.create_task(worker.run())
    serving = loop.create_task(run_forever(session, on_connected=connected, on_lost=lost))
    beating = loop.create_task(beat(notifier, worker))
    notifier.send("READY=1", "STATUS=connecting to the runtime")
    await asyncio.wait([working, serving], return_when=asyncio.FIRST_COMPLETED)
    if stopping:
        await asyncio.wait(stopping)
    for task in (working, serving, beating):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run_daemon(config_path: Path) -> None:
    """The whole of ``nri-restore run``; raises ConfigInvalid or Unavailable before anything is started."""
    config = load(config_path)
    lock = only_instance(config)
    try:
        asyncio.run(serve(config, config_path))
    finally:
        os.close(lock)
