"""The daemon away, killed, hung or restarted: nothing starts wrongly, what runs goes on, the next attempt works."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from shared.contract import HANDLER
from tests.e2e.faults import (
    counts_on,
    fresh_image,
    kill_daemon,
    later,
    left_over,
    no_defect,
    plan_of,
    processes_naming,
    refused,
    restores_at_last,
    restoring_pod,
    runs_ordinary,
    worker_of,
)
from tests.e2e.node.kubelet import EXITED, RUNNING, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Taken, with_daemon


@pytest.fixture(autouse=True)
def daemon_shows_no_defect(request: pytest.FixtureRequest) -> Iterator[None]:
    with no_defect(request.getfixturevalue("node" if "node" in request.fixturenames else "node_17")):
        yield


SLEEPS = ("sleep", "1000")


def test_without_the_daemon_nothing_starts_under_our_handler_and_all_recovers_with_it(
    node: Node, kubelet: Kubelet, registry: Registry, busybox: str, own_checkpoint: Taken
) -> None:
    if node.daemon is not None and node.daemon.running:
        node.stop_daemon()
    image = fresh_image(registry, own_checkpoint)
    runs_ordinary(kubelet, busybox, "ordinary")
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    first = pod.create(own_checkpoint.spec)
    sentence = "NotPrepared: the nri-restore daemon was not asked about this container; is nri-restore running"
    assert sentence in refused(first.start)
    assert first.status().exit_code == 128
    plain = kubelet.run_pod(PodSpec("plain", handler=HANDLER))
    assert sentence in refused(lambda: plain.run(ContainerSpec(busybox, command=SLEEPS)))

    with_daemon(node)
    runs_ordinary(kubelet, busybox, "ordinary")
    assert plain.run(ContainerSpec(busybox, command=SLEEPS), attempt=1).sh("echo runs") == "runs\n"
    counts_on(pod.restart(first))


@pytest.mark.parametrize("victim", ["session", "worker", "both"])
def test_killed_while_it_prepares(
    victim: str, node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    before = node.inventory()
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    with registry.frozen():
        container = pod.create(own_checkpoint.spec)
        starting = later(container.start)
        wait_for(lambda: node.run(["pgrep", "-f", f"restore-runc.*{container.id}"], check=False).returncode == 0, "it")
        if victim == "worker":
            os.kill(worker_of(daemon), signal.SIGKILL)
        else:
            kill_daemon(daemon, worker_too=victim == "both")
        said = refused(starting.result)
        assert "PreparationLost: the nri-restore daemon ended" in said or "PreparationLost: the daemon ended" in said
    if victim == "worker":
        assert daemon.running
    else:
        node.start_daemon()
    # A container that is created before there is another worker is refused, and tried again.
    counts_on(restores_at_last(pod, own_checkpoint))
    kubelet.remove_all()
    assert not left_over(node, before)


def test_restored_container_outlives_daemon_and_containerd(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    before = node.inventory()
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    container = pod.run(own_checkpoint.spec)
    counts_on(container)
    pid = container.info()

    node.stop_daemon()
    counts_on(container)
    daemon = node.start_daemon()
    counts_on(container)
    assert plan_of(node, container).is_dir()
    kill_daemon(daemon)
    node.start_daemon()

    node.restart_containerd()
    counts_on(container)
    assert container.sh("echo inside") == "inside\n"
    node.kill_containerd()
    counts_on_log = len(container.logs())
    wait_for(lambda: len(container.logs()) >= counts_on_log, "the log")
    node.start_containerd()
    counts_on(container)
    assert container.info().partition('"pid"')[2].split(",")[0] == pid.partition('"pid"')[2].split(",")[0]

    # It connects again by itself, within its back-off.
    counts_on(restores_at_last(restoring_pod(kubelet, own_checkpoint, image, "second"), own_checkpoint))
    container.stop(grace_s=10)
    assert container.status().exit_code == 3
    kubelet.remove_all()
    assert not left_over(node, before)


def test_hung_daemon_holds_up_one_call_and_is_left_out_after_that(
    node: Node, kubelet: Kubelet, registry: Registry, busybox: str, own_checkpoint: Taken, daemon: Program
) -> None:
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    daemon.pause()
    try:
        runs_ordinary(kubelet, busybox, "ordinary-1")
        runs_ordinary(kubelet, busybox, "ordinary-2")
        container = pod.create(own_checkpoint.spec)
        assert "NotPrepared" in refused(container.start)
        assert container.state == EXITED
    finally:
        daemon.resume()
    counts_on(restores_at_last(pod, own_checkpoint))


def test_hung_when_asked_about_a_restore_nothing_starts_from_the_late_answer(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    daemon.pause()
    try:
        container = pod.create(own_checkpoint.spec)
    finally:
        daemon.resume()
    # It reads the question now, and makes a plan for a container that was created without its adjustment.
    wait_for(lambda: (plan_of(node, container) / "status").exists(), "the late plan")
    assert "AnsweredTooLate" in refused(container.start)
    assert container.state == EXITED


def test_restarting_daemon_never_disturbs_ordinary_pods(
    node: Node, kubelet: Kubelet, busybox: str, daemon: Program
) -> None:
    before = node.inventory()
    for number in range(4):
        starting = later(node.start_daemon) if number else None
        runs_ordinary(kubelet, busybox, f"ordinary-{number}")
        if starting:
            starting.result()
        assert node.daemon
        if number % 2:
            node.daemon.kill()
        else:
            node.stop_daemon()
    node.start_daemon()
    assert not left_over(node, before)


def test_only_one_daemon_a_node_and_a_sentence_for_what_stops_it(node: Node, daemon: Program) -> None:
    command = "PYTHONPATH=/opt/nri-restore/dependencies:/opt/nri-restore/checkout python3 -B -m nri_plugin.cli run"

    def ends_with(arguments: str = "") -> tuple[int, str]:
        done = node.run(["sh", "-c", f"{command} {arguments}"], check=False)
        assert done.stderr.count("\n") == 1, done.stderr
        return done.returncode, done.stderr.strip()

    again = "nri-restore: AlreadyRunning: another nri-restore runs on this node; stop it first"
    assert ends_with() == (1, again)
    assert daemon.running
    node.path("/tmp/wrong.toml").write_text("[limits]\nanswer_s = 'soon'\n")
    node.path("/tmp/unwritable.toml").write_text("[paths]\nplans = '/proc/nowhere'\n")
    assert ends_with("--config /tmp/wrong.toml") == (
        1,
        "nri-restore: ConfigInvalid: /tmp/wrong.toml: limits.answer_s must be a number",
    )
    status, said = ends_with("--config /tmp/unwritable.toml")
    assert (status, said.split(": ")[1]) == (1, "NodeStorageFailed")
    node.sh("rm /tmp/wrong.toml /tmp/unwritable.toml")


def test_sigterm_answers_what_is_being_decided_and_ends_cleanly(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    pod = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "resumed")
    plans = node.path("/run/nri-restore")
    before = set(plans.iterdir())
    with registry.frozen():
        creating = later(lambda: pod.create(own_checkpoint.spec))
        wait_for(lambda: any((each / "request").exists() for each in set(plans.iterdir()) - before), "the plan")
        assert node.daemon
        assert node.daemon.stop() == 0
        assert creating.exception() is None
        assert "PreparationLost" in refused(pod.containers[0].start)
    wait_for(lambda: not processes_naming(node, "nri_plugin"), "the worker to end too")
    with_daemon(node)
    counts_on(pod.restart(pod.containers[0]))


def test_orphans_go_when_the_daemon_starts_and_what_lives_stays(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    before = node.inventory()
    image = fresh_image(registry, own_checkpoint)
    living = restoring_pod(kubelet, own_checkpoint, image, "living").run(own_checkpoint.spec)
    other = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "other")
    gone, exited = other.run(own_checkpoint.spec), None
    exited = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "exited").run(
        own_checkpoint.spec
    )
    views = node.path("/run/nri-restore/views")
    wait_for(lambda: len(list(views.iterdir())) == 3, "no views but of these")
    kill_daemon(daemon)
    exited.stop(grace_s=0)
    other.remove()
    plan = plan_of(node, gone)
    assert plan.is_dir()
    node.start_daemon()
    wait_for(lambda: not plan.exists(), "the plan of a container that vanished to go")
    # A container that ended keeps its plan, not its view.
    wait_for(lambda: len(list(views.iterdir())) == 1, "the views nobody uses to go")
    assert plan_of(node, exited).is_dir()
    assert plan_of(node, living).is_dir()
    counts_on(living)
    # The view that was mounted before is used again.
    again = restoring_pod(kubelet, own_checkpoint, image, "again").run(own_checkpoint.spec)
    counts_on(again)
    kubelet.remove_all()
    assert not left_over(node, before)


def test_after_a_reboot_everything_works(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    pod.run(own_checkpoint.spec)
    kill_daemon(daemon, worker_too=True)
    pod.stop(grace_s=0)
    # What a reboot leaves of /run: nothing. containerd's database and the state directory stay.
    node.kill_containerd()
    node.sh("for m in $(awk '$5 ~ \"^/run/nri-restore/\" {print $5}' /proc/self/mountinfo); do umount -l $m; done")
    node.sh("rm -rf /run/nri-restore")
    node.start_containerd()
    node.start_daemon()
    counts_on(restores_at_last(restoring_pod(kubelet, own_checkpoint, image, "anew"), own_checkpoint))


def test_full_plan_directory_is_a_refusal_with_a_reason(
    node: Node, kubelet: Kubelet, registry: Registry, busybox: str, own_checkpoint: Taken, daemon: Program
) -> None:
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    node.stop_daemon()
    node.sh("mount -t tmpfs -o size=64k,mode=700 tmpfs /run/nri-restore")
    try:
        node.start_daemon()
        node.sh("head -c 1M /dev/zero > /run/nri-restore/filler || true")
        said = refused(lambda: pod.run(own_checkpoint.spec))
        assert "NodeStorageFailed: /run/nri-restore/" in said
        assert "No space left on device; free space there" in said
        runs_ordinary(kubelet, busybox, "ordinary")
    finally:
        node.stop_daemon()
        node.sh("umount -l /run/nri-restore || true")
    node.start_daemon()
    counts_on(pod.run(own_checkpoint.spec, attempt=1))
    assert pod.containers[-1].state == RUNNING
