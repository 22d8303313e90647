"""The worker's jobs: locks, order, cancelling, and what a new one makes up for."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, cast

import pytest

import nri_plugin.worker
from nri_plugin.config import Config
from nri_plugin.restore.plan import Plan, plans_in
from nri_plugin.restore.request import RestoreRequest
from nri_plugin.worker import ORPHAN_AGE_S, Worker, keep_temporary_files_in
from shared.errors import Refused, Unavailable


class Preparations:
    """Stands in for nri_plugin.restore.prepare.prepare: each goes on until it is told to, or cancelled."""

    def __init__(self) -> None:
        self.go_on: dict[str, threading.Event] = {}
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.error: Exception | None = None

    def __call__(
        self, node: Any, cache: Any, request: RestoreRequest, plan: Plan, answer: Any, cancelled: threading.Event
    ) -> Any:
        name = request.container_id[0]
        self.begun.append(name)
        if self.error is not None:
            raise self.error
        answer(None)
        answer(Refused("TooLate", "only the first answer counts"))
        go_on = self.go_on.setdefault(name, threading.Event())
        while not go_on.wait(0.002) and not cancelled.is_set():
            continue
        self.ended.append(f"{name} cancelled" if cancelled.is_set() else name)
        return SimpleNamespace(outcome="ready", warnings=[], line=lambda: "ready")

    def finish(self, name: str) -> None:
        self.go_on.setdefault(name, threading.Event()).set()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def preparations(monkeypatch: pytest.MonkeyPatch) -> Preparations:
    made = Preparations()
    monkeypatch.setattr(nri_plugin.worker, "prepare", made)
    return made


@pytest.fixture
def sent() -> list[dict[str, Any]]:
    return []


class Existing:
    """The part of containerd that lists containers and leases."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.away = False
        self.tells_of_failures = True

    def container_ids(self) -> frozenset[str]:
        if self.away:
            raise Unavailable("RuntimeAway", "containerd cannot be reached")
        return frozenset(self.ids)

    def leases(self, prefix: str) -> list[Any]:
        return []


@pytest.fixture
def existing() -> Existing:
    return Existing()


@pytest.fixture
def worker(config: Config, sent: list[dict[str, Any]], preparations: Preparations, existing: Existing) -> Worker:
    made = Worker(config, sent.append)
    made.node.containerd = cast(Any, existing)
    made.cache.containerd = cast(Any, existing)
    made.node.views.containerd = cast(Any, existing)
    return made


@pytest.fixture
def prepare(
    worker: Worker, planned: Callable[..., Plan], request_for: Callable[..., RestoreRequest]
) -> Callable[..., Plan]:
    """Makes a plan as the session does, and the worker begins with it."""

    def begin(letter: str, **changes: Any) -> Plan:
        plan = planned(letter, **changes)
        worker.handle({"job": "prepare", "request": json.loads(request_for(letter, **changes).to_json())})
        return plan

    return begin


def locked(plan: Plan) -> bool:
    fd = os.open(plan.path / "lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_lock_is_held_from_the_job_on_until_the_preparation_ends(
    worker: Worker, prepare: Callable[..., Plan], preparations: Preparations, sent: list[dict[str, Any]]
) -> None:
    plan = prepare("a")
    assert locked(plan)
    eventually(lambda: bool(sent))
    assert locked(plan)
    preparations.finish("a")
    eventually(lambda: not locked(plan))
    eventually(lambda: not worker.preparing)
    assert sent == [{"container_id": "a" * 64, "reason": None, "sentence": None}]


def test_preparation_that_breaks_is_answered_and_frees_the_lock(
    worker: Worker, prepare: Callable[..., Plan], preparations: Preparations, sent: list[dict[str, Any]]
) -> None:
    preparations.error = RuntimeError("a defect")
    plan = prepare("a")
    eventually(lambda: not worker.preparing)
    (answer,) = sent
    assert answer["reason"] == "Internal"
    assert not locked(plan)


def test_error_of_ours_that_could_not_be_written_down_is_answered_with_its_reason(
    worker: Worker, prepare: Callable[..., Plan], preparations: Preparations, sent: list[dict[str, Any]]
) -> None:
    preparations.error = Unavailable("NodeStorageFailed", "no space")
    prepare("a")
    eventually(lambda: bool(sent))
    assert sent[0]["reason"] == "NodeStorageFailed"


def test_plan_that_is_gone_again_is_answered(
    worker: Worker, request_for: Callable[..., RestoreRequest], sent: list[dict[str, Any]]
) -> None:
    worker.handle({"job": "prepare", "request": asdict(request_for("a"))})
    assert sent[0]["reason"] == "NodeStorageFailed"
    assert not worker.preparing


def test_slow_preparations_keep_nothing_else_waiting(
    worker: Worker, prepare: Callable[..., Plan], preparations: Preparations
) -> None:
    letters = list("bcdefghijklmnopqrstuvwxyzBCDEFGHIJKLMNOPQRSTUVWXYZ")
    for letter in letters:
        prepare(letter)
    plan = prepare("a")
    preparations.finish("a")
    eventually(lambda: not locked(plan))
    worker.handle({"job": "remove", "container_id": "a" * 64})
    eventually(lambda: not plan.path.exists())
    for letter in letters:
        preparations.finish(letter)
    eventually(lambda: not worker.preparing)


@pytest.mark.parametrize("job", ["stop", "remove"])
def test_stop_and_remove_end_the_preparation_first(
    worker: Worker, prepare: Callable[..., Plan], preparations: Preparations, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def let_go(node: Any, plan: Plan) -> None:
        preparations.ended.append(f"{plan.container_id[0]} let go")

    monkeypatch.setattr(nri_plugin.worker, "let_go", let_go)
    plan, other = prepare("a"), prepare("b")
    eventually(lambda: len(preparations.begun) == 2)
    worker.handle({"job": job, "container_id": "a" * 64})
    eventually(lambda: len(preparations.ended) == 2)
    assert preparations.ended == ["a cancelled", "a let go"]
    eventually(lambda: plan.path.exists() is (job == "stop"))
    assert locked(other)
    preparations.finish("b")
    eventually(lambda: not worker.preparing)


def test_remove_of_what_was_never_here(worker: Worker, config: Config) -> None:
    worker.remove("f" * 64)
    assert not (config.paths.plans / ("f" * 64)).exists()


def test_stopped_pod_cancels_its_own_preparations_and_marks_what_is_not_restored_yet(
    worker: Worker, prepare: Callable[..., Plan], planned: Callable[..., Plan], preparations: Preparations
) -> None:
    prepare("a", pod_id="one")
    prepare("b", pod_id="two")
    ready, restored, foreign = planned("c", pod_id="one"), planned("d", pod_id="one"), planned("e", pod_id="two")
    restored.write("restored", "1")
    eventually(lambda: len(preparations.begun) == 2)
    worker.handle({"job": "stop_pod", "pod_id": "one"})
    eventually(lambda: preparations.ended == ["a cancelled"])
    eventually(lambda: ready.has("cancelled"))
    assert not restored.has("cancelled")
    assert not foreign.has("cancelled")
    preparations.finish("b")
    eventually(lambda: not worker.preparing)


def test_stop_of_a_pod_and_removal_of_its_containers_at_once_leave_nothing(
    worker: Worker, planned: Callable[..., Plan], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        plans = [planned(letter, pod_id="one") for letter in "abcdefgh"]
        for plan in plans:
            worker.handle({"job": "stop_pod", "pod_id": "one"})
            worker.handle({"job": "remove", "container_id": plan.container_id})
        eventually(lambda plans=plans: not any(plan.path.exists() for plan in plans))  # type: ignore[misc]
    assert "failed" not in caplog.text


def test_ping_is_answered_with_the_plans_there_are(
    worker: Worker, planned: Callable[..., Plan], sent: list[dict[str, Any]]
) -> None:
    planned("a").write("status", "ok\n")

    def asked() -> bool:
        worker.handle({"job": "ping"})
        return sent[-1] == {"alive": True, "plans": {"ready": 1}, "oldest_s": 0.0}

    eventually(asked)


def test_end_of_a_restore_is_told_when_its_container_goes(
    worker: Worker, planned: Callable[..., Plan], sent: list[dict[str, Any]]
) -> None:
    plan = planned("a")
    for name, text in (("status", "ok\n"), ("why", "MountFailed: x"), ("report", '{"phases": {"view": 0.5}}')):
        plan.write(name, text)
    worker.handle({"job": "remove", "container_id": "a" * 64})
    eventually(lambda: not plan.path.exists())
    assert sent == [{"result": "failed", "reason": "MountFailed", "phases": {"view": 0.5}}]


def test_refusal_by_the_session_is_told_too(
    worker: Worker, request_for: Callable[..., RestoreRequest], sent: list[dict[str, Any]]
) -> None:
    subject = asdict(request_for("a").subject)
    worker.handle({"job": "refused", "subject": subject, "reason": "AnnotationInvalid", "sentence": "x"})
    eventually(lambda: bool(sent))
    assert sent == [{"result": "refused", "reason": "AnnotationInvalid", "phases": {}}]


def test_unknown_job_is_passed_over(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    worker.handle({"job": "dance"})
    assert "unknown job 'dance'" in caplog.text


# ---- reconciling ----


@pytest.fixture
def since() -> float:
    """When the worker was started: before the test makes its plans, though it may read of them only later."""
    return time.time() - 1


def older(plan: Plan, seconds: float) -> Plan:
    before = time.time() - seconds
    os.utime(plan.path / "request", (before, before))
    return plan


def test_plan_without_a_container_goes_once_it_cannot_be_one_just_being_created(
    worker: Worker, planned: Callable[..., Plan], existing: Existing, monkeypatch: pytest.MonkeyPatch, since: float
) -> None:
    timers: list[tuple[float, list[Any]]] = []

    def timer(seconds: float, function: Any, arguments: list[Any]) -> Any:
        timers.append((seconds, arguments))
        return SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(threading, "Timer", timer)
    old, young, living = older(planned("a"), 3600), planned("b"), older(planned("c"), 3600)
    living.write("status", "ok\n")
    existing.ids.add("c" * 64)
    worker.reconcile(since)
    assert not old.path.exists()
    assert young.path.exists()
    assert living.path.exists()
    # The young one is looked at again.
    assert timers == [(ORPHAN_AGE_S, [{"job": "reconcile", "since": 0.0}])]
    older(young, ORPHAN_AGE_S + 1)
    worker.reconcile(since)
    assert not young.path.exists()
    assert len(timers) == 1


def test_leftovers_are_looked_for_after_a_creation_of_whose_failure_nobody_would_tell(
    prepare: Callable[..., Plan],
    preparations: Preparations,
    existing: Existing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers: list[float] = []
    monkeypatch.setattr(threading, "Timer", lambda after_s, *_: timers.append(after_s) or SimpleNamespace(start=int))
    for name in "abc":
        preparations.finish(name)
    prepare("a")
    assert timers == []
    existing.tells_of_failures = False
    prepare("b")
    prepare("c")
    assert timers == [ORPHAN_AGE_S], "one look for both"


def test_plan_of_an_earlier_daemon_without_a_container_goes_at_once(
    worker: Worker, planned: Callable[..., Plan], sent: list[dict[str, Any]]
) -> None:
    plan = planned("a")
    worker.reconcile(time.time() + 1)
    assert not plan.path.exists()
    assert sent == [{"cleaned": 1}]


def test_plan_that_was_never_written_whole_goes_unless_it_is_just_being_written(
    worker: Worker, planned: Callable[..., Plan], since: float
) -> None:
    plan = planned("a")
    plan.drop("request")
    worker.reconcile(since)
    assert plan.path.exists()
    os.utime(plan.path, (1, 1))
    worker.reconcile(since)
    assert not plan.path.exists()


def test_preparation_that_died_with_an_earlier_worker_is_refused_so_that_nobody_waits(
    worker: Worker, planned: Callable[..., Plan], existing: Existing, since: float
) -> None:
    lost, own, ordinary = older(planned("a"), 3600), planned("b"), older(planned("c", by_default=True), 3600)
    existing.ids |= {"a" * 64, "b" * 64, "c" * 64}
    worker.reconcile(since)
    assert (lost.status or "").startswith("refused PreparationLost: ")
    assert (ordinary.status or "").startswith("undecided PreparationLost: ")
    assert own.status is None


def test_preparation_under_way_is_left_alone(
    worker: Worker, prepare: Callable[..., Plan], preparations: Preparations, since: float
) -> None:
    plan = older(prepare("a"), 3600)
    worker.reconcile(since)
    assert plan.path.exists()
    assert plan.status is None
    preparations.finish("a")
    eventually(lambda: not worker.preparing)


def test_view_is_let_go_when_the_process_ended_meanwhile_and_kept_while_it_runs_or_is_to_run(
    worker: Worker, planned: Callable[..., Plan], existing: Existing, monkeypatch: pytest.MonkeyPatch, since: float
) -> None:
    let_go: list[str] = []
    monkeypatch.setattr(nri_plugin.worker, "let_go", lambda node, plan: let_go.append(plan.container_id[0]))
    dead = subprocess.Popen(["true"])
    dead.wait()
    for letter, files in {
        "a": {"restored": str(dead.pid)},
        "b": {"restored": str(os.getpid())},
        "c": {},
        "d": {"restoring": "1", "failed": ""},
    }.items():
        plan = older(planned(letter), 3600)
        for name, text in {"status": "ok\n", **files}.items():
            plan.write(name, text)
        existing.ids.add(letter * 64)
    worker.reconcile(since)
    assert sorted(let_go) == ["a", "d"]


def test_runtime_that_is_away_costs_nothing(
    worker: Worker, planned: Callable[..., Plan], existing: Existing, caplog: pytest.LogCaptureFixture
) -> None:
    plan = older(planned("a"), 3600)
    existing.away = True
    worker.handle({"job": "reconcile", "since": since})
    eventually(lambda: "RuntimeAway" in caplog.text)
    assert plan.path.exists()


def test_one_plan_that_cannot_be_cleaned_up_does_not_keep_the_others(
    worker: Worker,
    planned: Callable[..., Plan],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    since: float,
) -> None:
    plans = [older(planned(letter), 3600) for letter in "abc"]
    remove = worker.remove

    def fails_for_b(container_id: str) -> None:
        if container_id[0] == "b":
            raise Unavailable("StillMounted", "it cannot be unmounted")
        remove(container_id)

    monkeypatch.setattr(worker, "remove", fails_for_b)
    monkeypatch.setattr(Worker, "remove", fails_for_b, raising=False)
    worker.reconcile(since)
    assert [plan.path.exists() for plan in plans] == [False, True, False]


def test_temporary_files_are_beside_the_plans_and_those_of_a_killed_worker_go(
    config: Config, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "/tmp")
    plan, plans = planned("a"), config.paths.plans
    (plans / "nri-restore-left").mkdir()
    (plans / "nri-restore-left/cpuinfo.img").touch()
    keep_temporary_files_in(plans)
    assert not (plans / "nri-restore-left").exists()
    assert tempfile.mkdtemp(prefix="nri-restore-").startswith(f"{plans}/")
    assert [each.path for each in plans_in(plans)] == [plan.path]


def test_worker_process_does_its_jobs_and_ends_when_its_session_does(
    config: Config, planned: Callable[..., Plan]
) -> None:
    plan = planned("a")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "nri_plugin.process", "worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
        theirs.close()
        ours.sendall(json.dumps({"job": "configure", "config": config.document()}).encode() + b"\n")
        ours.sendall(json.dumps({"job": "remove", "container_id": "a" * 64}).encode() + b"\n")
        eventually(lambda: not plan.path.exists())
        # It may be asked something just before its session dies.
        ours.sendall(b'{"job": "ping"}\n' * 100)
        ours.close()
        assert process.wait(60) == 0
        # It says that there is no containerd here, where it comes to that before its session dies; nothing else.
        assert process.stderr is not None
        assert all(b"RuntimeAway: containerd cannot be reached" in line for line in process.stderr)
    process.stderr.close()  # type: ignore[union-attr]
