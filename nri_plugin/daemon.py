"""The daemon: the session process, which answers the runtime, and the worker process it keeps alive.

The session never blocks: an ordinary container is answered inside the NRI library's read; for one of ours it waits at
most ``limits.answer_s``, and no longer than the runtime waits, for the worker's quick checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nri_plugin.config import Config, ConfigInvalid, load
from nri_plugin.instance import only_instance
from nri_plugin.logs import about
from nri_plugin.metrics import Metrics
from nri_plugin.notify import Notifier
from nri_plugin.nri.nri_pb2 import Container, ContainerAdjustment, PodSandbox
from nri_plugin.nri.reconnect import run_forever
from nri_plugin.nri.session import Session
from nri_plugin.nri.versions import Runtime
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.request import concerns_us, request_of, subject_of, under_handler
from nri_plugin.scrape import served
from nri_plugin.worker_process import WorkerProcess
from shared.contract import CRIU_CONFIG
from shared.errors import RestoreError, Unavailable

log = logging.getLogger(__name__)

ANSWER_MARGIN_S = 0.2
"""A verdict that is late lets the container be created and refused at its start; a late answer fails its creation."""
WORKER_SILENT_S = 90.0
"""A worker that did not answer for so long in spite of being replaced: the service manager's watchdog takes over."""


class RestoreHandler:
    """What the NRI session calls; see nri_plugin.nri.handler.Handler."""

    def __init__(self, config: Config, worker: WorkerProcess) -> None:
        self.config = config
        self.worker = worker

    def owns(self, pod: PodSandbox, container: Container) -> bool:
        return concerns_us(pod, container, self.config.runtime.handler, default=self.config.handler.default)

    async def create_container(self, pod: PodSandbox, container: Container, limit_s: float) -> ContainerAdjustment:
        try:
            with about(subject_of(pod, container)):
                return await self._decide(pod, container, limit_s)
        except RestoreError:
            raise
        except Exception as error:
            with about(subject_of(pod, container)):
                log.exception("deciding failed")
            raise Unavailable("Internal", f"nri-restore failed: {type(error).__name__}: {error}") from error

    async def _decide(self, pod: PodSandbox, container: Container, limit_s: float) -> ContainerAdjustment:
        try:
            runtime, default = self.config.runtime, self.config.handler.default
            request = request_of(pod, container, runtime.handler, crio=runtime.name == "cri-o", default=default)
        except RestoreError as error:
            subject = asdict(subject_of(pod, container))
            self.worker.send({"job": "refused", "subject": subject, "reason": error.reason, "sentence": error.sentence})
            raise
        plan = Plan(self.config.paths.plans, container.id)
        try:
            plan.create(request)
            document = json.loads(request.to_json())
            answer_s = min(self.config.limits.answer_s, max(0.0, limit_s - ANSWER_MARGIN_S))
            verdict = await self.worker.prepare(document, container.id, answer_s)
            if verdict is not None:
                raise verdict
        except Unavailable as error:
            if not request.by_default:
                raise
            log.warning("%s: %s; restore-runc decides by itself", error.reason, error.sentence)
        return ContainerAdjustment(annotations={CRIU_CONFIG: str(plan.path / "criu.conf")})

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        self.worker.reconciles = True
        self.worker.reconcile()

    async def stop_container(self, pod: PodSandbox, container: Container) -> None:
        if self.owns(pod, container):
            with about(subject_of(pod, container)):
                self.worker.send({"job": "stop", "container_id": container.id})

    async def remove_container(self, pod: PodSandbox, container: Container) -> None:
        if self.owns(pod, container):
            with about(subject_of(pod, container)):
                self.worker.send({"job": "remove", "container_id": container.id})

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        if under_handler(pod, self.config.runtime.handler, default=self.config.handler.default):
            self.worker.send({"job": "stop_pod", "pod_id": pod.id})

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        """Not subscribed to."""


async def beat(notifier: Notifier, worker: WorkerProcess) -> None:
    """Tells the service manager's watchdog that the daemon works, as long as the worker does too."""
    while notifier.watchdog_s is not None:
        if time.monotonic() - worker.heard_at < WORKER_SILENT_S:
            notifier.send("WATCHDOG=1")
        await asyncio.sleep(notifier.watchdog_s / 3)


def reload(handler: RestoreHandler, config_path: Path) -> None:
    """Goes by the file as it is now, for containers created from now on; one that cannot be used changes nothing."""
    config = handler.config
    try:
        newer = load(config_path)
    except ConfigInvalid as error:
        log.error("%s; the configuration stays as it was", error)
        return
    handler.config = config.reloaded(newer)
    handler.worker.configure(handler.config)
    log.info("%s was read again", config_path)
    if handler.config != newer:
        log.warning(
            "%s: sections other than policy, handler, limits and cache hold once nri-restore is restarted", config_path
        )


async def serve(config: Config, config_path: Path, version: str) -> None:
    """Runs until SIGTERM or SIGINT; SIGHUP has the configuration read again.

    Ready before the runtime is there: it may be ordered after this service, or be down for long.
    """
    notifier = Notifier()
    metrics = Metrics(version)
    worker = WorkerProcess(config, metrics)
    handler = RestoreHandler(config, worker)
    session = Session(config.nri.socket, config.nri.name, config.nri.index, handler)
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        notifier.send("STOPPING=1")
        stopping.append(loop.create_task(session.close()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    def reread() -> None:
        notifier.reloading()
        reload(handler, config_path)
        notifier.send("READY=1")

    loop.add_signal_handler(signal.SIGHUP, reread)

    def connected(runtime: Runtime) -> None:
        version = ".".join(map(str, runtime.nri))
        notifier.status(f"connected to {runtime.name} {runtime.version}, NRI {version}")
        if runtime.name != config.runtime.name:
            log.error(
                'this is %s, and restores will fail: [runtime] of %s must say name = "%s"',
                runtime.name,
                config_path,
                runtime.name,
            )

    def lost(error: RestoreError | None) -> None:
        notifier.status(f"not connected to the runtime: {error or 'it ended the connection'}")

    def render() -> str:
        return metrics.render(session.counts, connected=session.ready)

    working = loop.create_task(worker.run())
    serving = loop.create_task(run_forever(session, on_connected=connected, on_lost=lost))
    beating = loop.create_task(beat(notifier, worker))
    async with served(config.paths.plans, config.metrics.port, render):
        notifier.send("READY=1", "STATUS=connecting to the runtime")
        await asyncio.wait([working, serving], return_when=asyncio.FIRST_COMPLETED)
        if stopping:
            await asyncio.wait(stopping)
    for task in (working, serving, beating):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run_daemon(config_path: Path, version: str) -> None:
    """The whole of ``nri-restore run``; raises ConfigInvalid or Unavailable before anything is started."""
    config = load(config_path)
    lock = only_instance(config)
    try:
        asyncio.run(serve(config, config_path, version))
    finally:
        os.close(lock)
