"""What the fault tests share: checkpoint images nobody has seen, calls in the background, a CRIU with hooks."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from shared.contract import TRIGGER_CONTAINERD
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import image_of
from tests.e2e.node.inventory import Inventory, settled
from tests.e2e.node.kubelet import RUNNING, Container, Kubelet, Pod
from tests.e2e.node.node import DAEMON_LOG, Node
from tests.e2e.node.processes import children
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import LIMIT_S, wait_for
from tests.e2e.restoring import Taken, have

T = TypeVar("T")

_numbers = itertools.count(1)
_background = ThreadPoolExecutor(8)


def fresh_image(registry: Registry, taken: Taken) -> str:
    """Reference of a checkpoint image with a digest of its own, so that no node has prepared anything of it."""
    number = next(_numbers)
    config = {"Cmd": [*taken.spec.command, *taken.spec.args], "Labels": {"number": f"{os.getpid()}-{number}"}}
    image = image_of([taken.archive.read_bytes()], config, annotations={TRIGGER_CONTAINERD: "counter"})
    return registry.push(image, f"fault/{taken.name}-{number}:1")


def restoring_pod(kubelet: Kubelet, taken: Taken, image: str, name: str, **changes: object) -> Pod:
    """A pod whose container ``taken.spec`` restores by annotation: our own way on every runtime."""
    have(kubelet.node, taken.base)
    return kubelet.run_pod(taken.annotated(name, image, **changes))


def refused(call: Callable[[], object]) -> str:
    """What the CRI says when ``call`` fails, as it must."""
    with pytest.raises(CriError) as caught:
        call()
    return caught.value.details


def later(call: Callable[[], T]) -> Future[T]:
    """``call`` on a thread of its own."""
    return _background.submit(call)


def counts_on(container: Container) -> None:
    """Waits until the restored counter prints new numbers; they follow on those in the checkpoint."""

    def numbers() -> list[int]:
        return [int(text) for text in container.logs() if text.isdigit()]

    assert container.state == RUNNING
    seen = numbers()
    wait_for(lambda: len(numbers()) > len(seen), f"{container.spec.name} to count on after {seen[-3:]}")
    now = numbers()
    assert now == list(range(1, now[-1] + 1))


def restores_at_last(pod: Pod, taken: Taken) -> Container:
    """Attempt after attempt, as the kubelet does, until one restores."""

    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            # A creation that ran into its deadline may have come to be all the same; the kubelet then finds it listed.
            return pod.run(taken.spec, attempt=len(pod.node.cri.list_containers(pod.id)))
        except CriError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def runs_ordinary(kubelet: Kubelet, image: str, name: str) -> None:
    """An ordinary pod under the default handler, through its whole life."""
    pod = kubelet.run_pod(PodSpec(name))
    container = pod.run(ContainerSpec(image, command=("sh", "-c", "echo hello; exec sleep 1000")))
    assert container.sh("echo inside") == "inside\n"
    container.stop(grace_s=0)
    container.remove()
    pod.remove(grace_s=0)
    kubelet.pods.remove(pod)


def left_over(node: Node, before: Inventory, *, without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """What is left beyond ``before`` once the kubelet collects images; ``without`` as in ``settled``."""
    for image in node.inventory().beyond(before).get("images", []):
        node.cri.remove_image(image)
    return settled(node, before, without=without)


@contextmanager
def no_defect(node: Node) -> Iterator[None]:
    """Inside, nothing that the daemon logs is a traceback, whatever it is put through."""
    log = node.path(DAEMON_LOG)
    before = log.stat().st_size if log.exists() else 0
    yield
    said = log.read_bytes()[before:].decode(errors="replace") if log.exists() else ""
    assert "Traceback" not in said, said


def worker_of(daemon: Program) -> int:
    """Process id of the daemon's worker."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = children(daemon.pid)
        return bool(found)

    wait_for(is_there, "the daemon's worker")
    return found[0]


def kill_daemon(daemon: Program, *, worker_too: bool = False) -> None:
    if worker_too:
        worker = worker_of(daemon)
        daemon.pause()  # or it starts another
        os.kill(worker, signal.SIGKILL)
    daemon.kill()


@contextmanager
def restore_runc(node: Node, **settings: int) -> Iterator[None]:
    """Inside, restore-runc is configured so."""
    file = node.path("/etc/nri-restore/restore-runc.conf")
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def criu_hook(node: Node, script: str) -> Iterator[None]:
    """Inside, CRIU runs ``script`` at each stage of a restore or dump; $CRTOOLS_SCRIPT_ACTION says which (criu(8)).

    The script sees the node's files; CRIU, which restores in a root of its own, has what is below /usr.
    """
    hook, called = node.path("/opt/hook"), node.path("/usr/local/sbin/criu-hook")
    options = node.path("/etc/criu/default.conf")
    hook.write_text(f"{script}\n")
    called.write_text("#!/bin/sh\nexec nsenter --mount=/proc/1/ns/mnt sh /opt/hook\n")
    called.chmod(0o755)
    options.parent.mkdir(exist_ok=True)
    options.write_text("action-script /usr/local/sbin/criu-hook\n")
    try:
        yield
    finally:
        for each in (options, called, hook):
            each.unlink()


def processes_naming(node: Node, word: str) -> list[str]:
    return [line for line in node.processes().values() if word in line]


def plan_of(node: Node, container: Container) -> Path:
    return node.path(f"/run/nri-restore/{container.id}")
