"""The worker process: everything that takes time, so that the session process never does.

Speaks JSON lines on the socket it inherits. Jobs in: ``{"job": "prepare", "request": {...}}``, ``stop``, ``remove``
(``container_id``), ``stop_pod`` (``pod_id``), ``reconcile`` (``running``: container ids). One answer out per prepare:
``{"container_id", "reason", "sentence"}``, reason null to go on. It ends when the session closes its side.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nri_plugin.config import Config, load
from nri_plugin.restore import cleanup
from nri_plugin.restore.cache import ImageCache
from nri_plugin.restore.node import Node
from nri_plugin.restore.plan import Plan, plans_in
from nri_plugin.restore.prepare import let_go, prepare
from nri_plugin.restore.request import RestoreRequest
from shared.errors import RestoreError, Unavailable

log = logging.getLogger(__name__)

THREADS = 16
"""Preparations at once; most of their time is the runtime's, not ours."""


class Worker:
    """Runs jobs on threads; those of one container in the order they came."""

    def __init__(self, config: Config, send: Callable[[dict[str, Any]], None]) -> None:
        self.config = config
        self.node = Node.of(config)
        self.cache = ImageCache(self.node.containerd, config.paths.state, config.cache)
        self.send = send
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="job")
        self.guard = threading.Lock()
        self.preparing: dict[str, tuple[RestoreRequest, threading.Event, Future[None]]] = {}

    def handle(self, job: dict[str, Any]) -> None:
        """Starts one job; returns at once."""
        kind = job["job"]
        if kind == "prepare":
            request = RestoreRequest.from_json(job["request"])
            cancelled = threading.Event()
            with self.guard:
                future = self.pool.submit(self.prepare, request, cancelled)
                self.preparing[request.container_id] = (request, cancelled, future)
        elif kind == "stop":
            self.pool.submit(self.logged, self.stop, job["container_id"])
        elif kind == "remove":
            self.cancel(job["container_id"])
            self.pool.submit(self.logged, self.remove, job["container_id"])
        elif kind == "stop_pod":
            self.stop_pod(job["pod_id"])
        elif kind == "reconcile":
            self.pool.submit(self.logged, self.reconcile, frozenset(job["running"]))
        else:
            log.error("unknown job %r", kind)

    def logged(self, action: Callable[[Any], None], argument: Any) -> None:
        """Runs a clean-up; what it cannot do is logged and tried again when the daemon starts."""
        try:
            action(argument)
        except RestoreError as error:
            log.warning("%s: %s", error.reason, error)
        except Exception:
            log.exception("%s failed", action.__name__)

    def prepare(self, request: RestoreRequest, cancelled: threading.Event) -> None:
        answered = threading.Event()

        def answer(error: RestoreError | None) -> None:
            if not answered.is_set():
                answered.set()
                reason, sentence = (error.reason, error.sentence) if error else (None, None)
                self.send({"container_id": request.container_id, "reason": reason, "sentence": sentence})

        plan = Plan(self.config.paths.plans, request.container_id)
        try:
            with plan.locked():
                report = prepare(self.node, self.cache, request, plan, answer, cancelled)
            if report.outcome != "plain" or report.warnings:
                log.info("%s", report.line())
            for warning in report.warnings:
                log.warning("%s/%s: %s", request.pod_namespace, request.pod_name, warning)
        except Exception:
            log.exception("preparing %s failed", request.container_id[:12])
            answer(Unavailable("Internal", "nri-restore failed; its log on the node has the details"))
        finally:
            with self.guard:
                self.preparing.pop(request.container_id, None)

    def cancel(self, container_id: str) -> Future[None] | None:
        with self.guard:
            running = self.preparing.get(container_id)
        if running is None:
            return None
        running[1].set()
        return running[2]

    def stop_pod(self, pod_id: str) -> None:
        """Whatever waits for a preparation in this pod must not start any more."""
        with self.guard:
            for request, cancelled, _ in self.preparing.values():
                if request.pod_id == pod_id:
                    cancelled.set()

    def stop(self, container_id: str) -> None:
        """The process has ended: its view can go; the plan stays until the container is removed."""
        let_go(self.node, Plan(self.config.paths.plans, container_id))

    def remove(self, container_id: str) -> None:
        """Deletes the plan and everything that hangs on it, once its preparation has noticed."""
        if (future := self.cancel(container_id)) is not None:
            future.result()
        plan = Plan(self.config.paths.plans, container_id)
        cleanup.sweep_if_interrupted(plan)
        let_go(self.node, plan)
        cleanup.delete(plan)
        self.cache.prune(self.node.views.in_use())

    def reconcile(self, running: frozenset[str]) -> None:
        """After every (re)connection: what events were missed. ``running`` are the containers that have a process."""
        existing = self.node.containerd.container_ids()
        for plan in plans_in(self.config.paths.plans):
            with self.guard:
                if plan.container_id in self.preparing:
                    continue
            if plan.container_id not in existing and plan.container_id not in running:
                self.logged(self.remove, plan.container_id)
                continue
            if plan.status is None:
                plan.refuse(Unavailable("PreparationLost", "the daemon ended while it prepared this container"))
            if plan.container_id not in running:
                self.logged(self.stop, plan.container_id)
        for digest in self.node.views.mounted():
            self.logged(self.node.release, digest)
        self.cache.prune(self.node.views.in_use())


def main(config_path: Path, descriptor: int) -> None:
    """Serves jobs from the socket ``descriptor`` until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = load(config_path)
    channel = socket.socket(fileno=descriptor)
    sending = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with sending:
            channel.sendall(json.dumps(message).encode() + b"\n")

    worker = Worker(config, send)
    with channel.makefile("rb") as jobs:
        for line in jobs:
            worker.handle(json.loads(line))
    worker.pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s worker: %(message)s")
    main(Path(sys.argv[1]), int(sys.argv[2]))
