"""The worker process: everything that takes time, so that the session process never does.

Speaks JSON lines on the socket it inherits. Jobs in: ``{"job": "prepare", "request": {...}}``, ``stop``, ``remove``
(``container_id``), ``stop_pod`` (``pod_id``), ``reconcile`` (``since``), ``refused`` (``subject``, ``reason``,
``sentence``: by the session itself), ``ping``; before them all, and when it changes, ``configure`` (``config``). Out:
per prepare ``{"container_id", "reason", "sentence"}``, reason null to go on; per ping
``{"alive": true, "plans": {state: number}, "oldest_s"}``; and for the metrics ``{"result", "reason", "phases"}`` of a
restore that ended, in seconds, and ``{"cleaned": number}``. It ends when the session closes its side.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nri_plugin import logs
from nri_plugin.cluster.client import ClusterClient
from nri_plugin.config import Config, read_document
from nri_plugin.logs import Subject, about
from nri_plugin.memory import give_back
from nri_plugin.restore import cleanup
from nri_plugin.restore.cache import ImageCache
from nri_plugin.restore.node import Node
from nri_plugin.restore.outcome import Outcome, report_of
from nri_plugin.restore.plan import Plan, plans_in
from nri_plugin.restore.prepare import Answer, let_go, prepare
from nri_plugin.restore.request import RestoreRequest
from nri_plugin.restore.settled import Settled
from shared.errors import RestoreError, Unavailable

log = logging.getLogger(__name__)

THREADS = 256
"""Jobs at once, more than a node has containers: a slow pull must not keep others, or a clean-up, waiting."""
UNDO_WAIT_S = 20.0
"""How long a restore under way may take to end when its container is removed."""
ORPHAN_AGE_S = 60.0
"""A plan without a container may be one that is just being created, unless it is older than this."""


class Worker:
    """Runs jobs on threads; of one container, ``stop`` and ``remove`` end its preparation first and wait for it."""

    def __init__(self, config: Config, send: Callable[[dict[str, Any]], None]) -> None:
        self.config = config
        self.node = Node.of(config)
        self.cluster = ClusterClient(config.cluster)
        self.node.logins = self.cluster.logins
        self.cache = ImageCache(self.node.containerd, config.paths.state, config.cache)
        self.send = send
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="job")
        self.guard = threading.Lock()
        self.deleting = threading.Lock()
        """A pod's stop and a container's removal come at once, and a file written into a plan keeps it from going."""
        self.settled = Settled(config, self.deleting, self.tell)
        self.looking: Future[None] | None = None
        self.again: threading.Timer | None = None
        """When to look for leftovers once more."""
        self.preparing: dict[str, tuple[RestoreRequest, threading.Event, Future[None]]] = {}

    def handle(self, job: dict[str, Any]) -> None:
        """Starts one job; returns at once."""
        kind = job["job"]
        if kind == "prepare":
            self.start(RestoreRequest.from_json(job["request"]))
        elif kind == "stop":
            self.cancel(job["container_id"])
            self.pool.submit(self.logged_about, job["container_id"], self.stop, job["container_id"])
        elif kind == "remove":
            self.cancel(job["container_id"])
            self.pool.submit(self.logged_about, job["container_id"], self.remove, job["container_id"])
        elif kind == "stop_pod":
            self.cancel_pod(job["pod_id"])
            self.pool.submit(self.logged, self.stop_pod, job["pod_id"])
        elif kind == "ping":
            self.send({"alive": True, "plans": self.settled.states, "oldest_s": self.settled.oldest_s})
            if self.looking is None or self.looking.done():
                self.looking = self.pool.submit(self.logged, self.settled.look_at_all)
        elif kind == "configure":
            self.configure(read_document(job["config"], source="the session"))
        elif kind == "refused":
            subject = Subject(**job["subject"])
            self.pool.submit(self.logged, self.announce, subject, Outcome("refused", job["reason"], job["sentence"]))
        elif kind == "reconcile":
            self.pool.submit(self.logged, self.reconcile, job["since"])
        else:
            log.error("unknown job %r", kind)

    def configure(self, config: Config) -> None:
        """Goes by another configuration from the next container on."""
        self.config = self.node.config = config
        self.cache.limits = config.cache
        self.pool.submit(self.logged, self.cluster.publish)  # another CRIU may have been installed

    def start(self, request: RestoreRequest) -> None:
        """Begins a preparation; restore-runc waits for the plan's lock, so it is taken here, not on the thread."""
        plan = Plan(self.config.paths.plans, request.container_id)
        try:
            lock = plan.lock()
        except RestoreError as error:
            self.answer(request, error)
            return
        cancelled = threading.Event()
        with self.guard:
            future = self.pool.submit(self.prepare, request, plan, cancelled, lock)
            self.preparing[request.container_id] = (request, cancelled, future)
        if not self.node.containerd.tells_of_failures:
            self.reconcile_later()

    def logged(self, action: Callable[..., None], *arguments: Any) -> None:
        """Runs a clean-up; what it cannot do is logged and tried again when the daemon starts."""
        try:
            action(*arguments)
        except RestoreError as error:
            log.warning("%s: %s", error.reason, error)
        except Exception:
            log.exception("%s failed", action.__name__)
        give_back()

    def logged_about(self, container_id: str, action: Callable[..., None], *arguments: Any) -> None:
        with about(self.subject(container_id)):
            self.logged(action, *arguments)

    def subject(self, container_id: str) -> Subject | None:
        """Of what its plan says; None without one."""
        try:
            request = Plan(self.config.paths.plans, container_id).request()
        except (RestoreError, OSError):
            return None
        return request.subject if request else None

    def survey(self) -> None:
        """Learns what this node is before the first restore needs it, which says what is wrong with it."""
        with suppress(RestoreError):
            self.node.kernel()

    def answer(self, request: RestoreRequest, error: RestoreError | None) -> None:
        reason, sentence = (error.reason, error.sentence) if error else (None, None)
        self.send({"container_id": request.container_id, "reason": reason, "sentence": sentence})

    def prepare(self, request: RestoreRequest, plan: Plan, cancelled: threading.Event, lock: int) -> None:
        answered = threading.Event()

        def answer(error: RestoreError | None) -> None:
            if not answered.is_set():
                answered.set()
                self.answer(request, error)

        try:
            with about(request.subject):
                self.decide(request, plan, answer, cancelled)
        finally:
            os.close(lock)
            with self.guard:
                self.preparing.pop(request.container_id, None)
            give_back()

    def decide(self, request: RestoreRequest, plan: Plan, answer: Answer, cancelled: threading.Event) -> None:
        try:
            report = prepare(self.node, self.cache, request, plan, answer, cancelled)
            plan.write("report", json.dumps(report.document()))
            self.settled.look(plan)
            if report.outcome != "plain" or report.warnings:
                log.info("%s", report.line())
            for warning in report.warnings:
                log.warning("%s", warning)
        except RestoreError as error:
            log.error("%s: %s", error.reason, error)
            answer(error)
        except Exception:
            log.exception("preparing failed")
            answer(Unavailable("Internal", "nri-restore failed; its log on the node has the details"))

    def tell(self, plan: Plan, request: RestoreRequest, outcome: Outcome) -> None:
        """What is done once about every restore that ended."""
        phases = dict(report_of(plan).get("phases", {}))
        if outcome.restore_s is not None:
            phases["restore"] = outcome.restore_s
            log.info("restored in %.0f ms", outcome.restore_s * 1000)
        elif plan.has("why"):
            log.warning("the restore failed: %s: %s", outcome.reason, outcome.sentence)
        self.announce(request.subject, outcome, phases)

    def announce(self, subject: Subject, outcome: Outcome, phases: Mapping[str, float] = MappingProxyType({})) -> None:
        """Lets the metrics and whoever looks at the pod know."""
        self.cluster.announce(subject, outcome)
        self.send({"result": outcome.result, "reason": outcome.reason, "phases": dict(phases)})

    def cancel(self, container_id: str) -> Future[None] | None:
        with self.guard:
            running = self.preparing.get(container_id)
        if running is None:
            return None
        running[1].set()
        return running[2]

    def cancel_pod(self, pod_id: str) -> None:
        with self.guard:
            for request, cancelled, _ in self.preparing.values():
                if request.pod_id == pod_id:
                    cancelled.set()

    def stop_pod(self, pod_id: str) -> None:
        """Whatever waits for a preparation in this pod, or is being restored, must not run any more."""
        for plan in plans_in(self.config.paths.plans):
            with self.deleting:
                request = plan.request()
                if request is not None and request.pod_id == pod_id and not plan.has("restored"):
                    plan.write("cancelled", "")

    def stop(self, container_id: str) -> None:
        """The process has ended: its view can go; the plan stays until the container is removed."""
        self.settle(container_id)
        plan = Plan(self.config.paths.plans, container_id)
        self.settled.look(plan)
        let_go(self.node, plan)

    def remove(self, container_id: str) -> None:
        """Deletes the plan and everything that hangs on it."""
        self.settle(container_id)
        plan = Plan(self.config.paths.plans, container_id)
        cleanup.undo_if_interrupted(plan, wait_s=UNDO_WAIT_S)
        self.settled.look(plan)
        let_go(self.node, plan)
        with self.deleting:
            cleanup.delete(plan)
        self.cache.prune(self.node.views.held, self.node.image_lock)

    def settle(self, container_id: str) -> None:
        """Ends the container's preparation and waits until it has noticed."""
        if (future := self.cancel(container_id)) is not None:
            wait([future])

    def reconcile(self, since: float) -> None:
        """Makes up for events that were missed: after every (re)connection, and when a worker begins.

        Plans made before ``since``, when this worker was started, are not its own; later ones are, read already or not.
        """
        with self.guard:
            self.again = None
        plans = plans_in(self.config.paths.plans)
        # After the plans: a container whose plan was seen has its record by now, unless it is just being created.
        existing = self.node.containerd.container_ids()
        undecided = False
        for plan in plans:
            with self.guard:
                if plan.container_id in self.preparing:
                    continue
            if plan.container_id in existing:
                self.logged_about(plan.container_id, self.catch_up, plan, since)
            elif plan.made_at < max(since, time.time() - ORPHAN_AGE_S):
                self.logged_about(plan.container_id, self.remove, plan.container_id)
                self.send({"cleaned": 1})
            else:
                undecided = True
        for digest in self.node.views.mounted():
            self.logged(self.node.release, digest)
        self.cache.prune(self.node.views.held, self.node.image_lock)
        if undecided:
            self.reconcile_later()

    def reconcile_later(self) -> None:
        """Once for all who ask meanwhile; by then each plan without a container is old enough to be told by its age."""
        with self.guard:
            if self.again is None:
                self.again = threading.Timer(ORPHAN_AGE_S, self.handle, [{"job": "reconcile", "since": 0.0}])
                self.again.daemon = True
                self.again.start()

    def catch_up(self, plan: Plan, since: float) -> None:
        """What was missed about a container that exists."""
        if plan.status is None and plan.made_at < since:
            lost = Unavailable("PreparationLost", "the daemon ended while it prepared this container")
            request = plan.request()
            if request is not None and request.by_default:
                plan.leave(lost)
            else:
                plan.refuse(lost)
        cleanup.undo_if_interrupted(plan)
        if plan.has("failed") or (plan.has("restored") and not plan.runs):
            self.stop(plan.container_id)


def keep_temporary_files_in(plans: Path) -> None:
    """Of this process and its children, credentials among them: in memory, where what a killed worker left is found."""
    for left in plans.glob("nri-restore-*"):
        shutil.rmtree(left, ignore_errors=True)
    os.environ["TMPDIR"] = str(plans)


def main(descriptor: int) -> None:
    """Serves jobs from the socket ``descriptor`` until its other end closes."""
    for number in (signal.SIGINT, signal.SIGHUP):  # for the session, whoever sends them to the whole service
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    sending = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        # Of a session that has ended the jobs end too, which is where this process does.
        with sending, suppress(ConnectionError):
            channel.sendall(json.dumps(message).encode() + b"\n")

    # A session that ends before it has read every answer resets the connection.
    with suppress(ConnectionError), channel.makefile("rb") as jobs:
        if first := jobs.readline():
            config = read_document(json.loads(first)["config"], source="the session")
            logs.configure(config.log, "worker")
            keep_temporary_files_in(config.paths.plans)
            worker = Worker(config, send)
            worker.pool.submit(worker.logged, worker.survey)
            worker.pool.submit(worker.logged, worker.cluster.publish)
        for line in jobs:
            worker.handle(json.loads(line))
    # Not pool.shutdown: the interpreter would wait for pulls. Whoever waits for a lock we hold learns that it is lost.
    os._exit(0)
