"""What a real kubelet does while a restore takes its time, and afterwards: deadlines, deletion, probes, collection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest

from tests.e2e.faults import (
    counts_on,
    fresh_image,
    later,
    left_over,
    no_defect,
    plan_of,
    processes_naming,
    refused,
    restore_runc,
    restores_at_last,
    restoring_pod,
)
from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import EXITED, Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Taken, checkpointed, have, with_daemon


@pytest.fixture(autouse=True)
def daemon_shows_no_defect(request: pytest.FixtureRequest) -> Iterator[None]:
    with no_defect(request.getfixturevalue("node" if "node" in request.fixturenames else "node_17")):
        yield


def waits(container: Container) -> None:
    """Returns when restore-runc waits for the preparation."""
    node = container.pod.node
    lock = f"/run/nri-restore/{container.id}/lock"
    wait_for(lambda: any(line.startswith("flock") and lock in line for line in node.processes().values()), "the wait")


@pytest.mark.parametrize("how", ["sandbox stopped", "pod deleted"])
def test_pod_ends_while_its_checkpoint_is_pulled(
    how: str, node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    before = node.inventory()
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    # The shim does nothing else for the pod while it creates a container, so how long it waits is all that counts.
    limited = restore_runc(node, wait_s=4) if how == "sandbox stopped" else nullcontext()
    with limited, registry.frozen():
        container = pod.create(own_checkpoint.spec)
        starting = later(container.start)
        waits(container)
        began = time.monotonic()
        if how == "sandbox stopped":
            node.cri.stop_pod_sandbox(pod.id, deadline_s=20)
        else:
            pod.stop(grace_s=2)
        assert time.monotonic() - began < 20, "less than an attempt may wait by itself"
        assert ("StillPreparing: " if how == "sandbox stopped" else "Cancelled: ") in refused(starting.result)
        assert container.state == EXITED
        wait_for(lambda: not processes_naming(node, container.id), "what waited to end")
        kubelet.remove_all()
    assert not left_over(node, before)


def test_wait_is_limited_and_the_next_attempt_finds_what_went_on_being_prepared(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    before = node.inventory()
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    with restore_runc(node, wait_s=1), registry.frozen():
        first = pod.create(own_checkpoint.spec)
        assert "StillPreparing: the checkpoint is still being pulled or prepared after 1 s" in refused(first.start)
        second = pod.create(own_checkpoint.spec, 1)
        assert "StillPreparing" in refused(second.start)
    # The first attempt's preparation is not wasted.
    wait_for(lambda: (plan_of(node, first) / "status").exists(), "the first attempt's preparation")
    assert (plan_of(node, first) / "status").read_text() == "ok\n"
    with_registry_down = pod.create(own_checkpoint.spec, 2)
    registry.pause_service()
    try:
        with_registry_down.start()
    finally:
        registry.serve()
    counts_on(with_registry_down)
    kubelet.remove_all()
    assert not left_over(node, before)


def test_create_deadline_then_the_same_attempt_again(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    before = node.inventory()
    pod = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "resumed")
    daemon.pause()
    try:
        with pytest.raises(CriError) as late:
            pod.create(own_checkpoint.spec, deadline_s=0.5)
        assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        daemon.resume()
    counts_on(restores_at_last(pod, own_checkpoint))
    kubelet.remove_all()
    assert not left_over(node, before)


SERVES = (
    "httpd -p 8080 -h /root; i=0; trap 'exit 0' TERM; "
    "while :; do i=$((i+1)); echo $i; echo $i > /root/count; sleep 0.1; done"
)


@pytest.fixture(scope="session")
def serving_checkpoint(own_checkpoint: Taken, node_21: Node, checkpoints: Path) -> Taken:
    """A counter with a web server that serves the number."""
    spec = ContainerSpec(own_checkpoint.base, "counter", ("sh", "-c", SERVES))
    return checkpointed(Kubelet(node_21), checkpoints, PodSpec("serving"), spec, lambda each: len(each.logs()) > 3)


def test_probes_of_a_restored_container(
    node: Node, kubelet: Kubelet, registry: Registry, serving_checkpoint: Taken, daemon: Program
) -> None:
    taken = serving_checkpoint
    pod = restoring_pod(kubelet, taken, fresh_image(registry, taken), "resumed")
    container = pod.create(taken.spec)
    container.start()
    seen: list[int] = []

    def served() -> bool:
        """Twice another number at least; the file is empty for a moment at each step."""
        assert container.exec("test", "-s", "/root/count", timeout_s=10).exit_code in {0, 1}
        if text := node.sh(f"busybox wget -q -T 10 -O - http://{pod.ip}:8080/count").strip():
            seen.append(int(text))
        return len(set(seen)) > 2

    wait_for(served, "the served number to go on")
    assert seen == sorted(seen)
    assert seen[0] > 3
    assert container.exec("false", timeout_s=10).exit_code == 1
    with pytest.raises(CriError) as late:
        container.exec("sleep", "5", timeout_s=1)
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    counts_on(container)


def kill_process(container: Container) -> None:
    """As a crash would; the kubelet then makes the next attempt."""
    container.pod.node.sh(f"kill -9 {json.loads(container.info())['pid']}")
    container.wait_exit()


def collect(node: Node, *keep: str) -> None:
    """Removes every image that no pod names, as the kubelet's image collection may; ``keep`` are those they name."""
    kept = {node.cri.image_status(name).id for name in keep}  # type: ignore[union-attr]
    for image in node.cri.list_images():
        if image.id not in kept and not image.pinned:
            node.cri.remove_image(image.id)


def test_image_collection_takes_the_checkpoint_that_only_an_annotation_names(
    node: Node, kubelet: Kubelet, registry: Registry, busybox: str, own_checkpoint: Taken, daemon: Program
) -> None:
    pod = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "resumed")
    container = pod.run(own_checkpoint.spec)
    collect(node, own_checkpoint.base)
    registry.pause_service()
    try:
        counts_on(container)
        kill_process(container)
        counts_on(pod.restart(container))
    finally:
        registry.serve()
        node.cri.pull_image(busybox)


def test_image_collection_takes_the_base_image(
    node_17: Node, kubelet_of: Callable[[Node], Kubelet], registry: Registry, busybox: str, own_checkpoint: Taken
) -> None:
    node = node_17
    with_daemon(node)
    kubelet = kubelet_of(node)
    image = fresh_image(registry, own_checkpoint)
    have(node, image)
    pod = kubelet.run_pod(own_checkpoint.pod("resumed"))
    container = pod.run(own_checkpoint.restored(image))
    collect(node, image)
    assert node.cri.image_status(own_checkpoint.base) is None
    registry.pause_service()
    try:
        counts_on(container)
        kill_process(container)
        counts_on(pod.restart(container))
    finally:
        registry.serve()
        node.cri.pull_image(busybox)
