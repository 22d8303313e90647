"""Our NRI session against the containerd of both node flavours."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import grpc
import pytest

from nri_plugin.nri.nri_pb2 import ContainerAdjustment
from shared.errors import Refused
from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import RUNNING, Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.observed_session import SOCKET, Decision, ObservedSession

ANNOTATION = "nri-restore.test/plan"
FOREVER = ("sleep", "1000")


@pytest.fixture
def session(node: Node) -> Iterator[ObservedSession]:
    with ObservedSession(node.path(SOCKET)) as session:
        yield session


def annotating(value: str) -> Decision:
    async def decide() -> ContainerAdjustment:
        return ContainerAdjustment(annotations={ANNOTATION: value})

    return decide


def spec_annotations(container: Container) -> dict[str, str]:
    annotations: dict[str, str] = json.loads(container.info())["runtimeSpec"]["annotations"]
    return annotations


def test_the_runtime_is_recognised(node: Node, session: ObservedSession) -> None:
    runtime = session.session.runtime
    assert runtime is not None
    assert runtime.name == "containerd"
    assert runtime.nri == {"containerd-1.7": (0, 6, 1), "containerd-2.1": (0, 8, 0)}[node.flavour]


def test_an_ordinary_container_is_asked_about_and_its_end_is_told_in_order(
    kubelet: Kubelet, busybox: str, session: ObservedSession
) -> None:
    pod = kubelet.run_pod(PodSpec("ordinary"))
    container = pod.run(ContainerSpec(busybox, "main", FOREVER))
    assert session.asked == ["main"]
    assert container.state == RUNNING
    assert ANNOTATION not in spec_annotations(container)
    container.stop()
    container.remove()
    pod.remove()
    wait_for(lambda: len(session.heard) == 4, "the pod's end")
    assert session.heard == [("synchronize", ""), ("stop", "main"), ("remove", "main"), ("stop pod", "ordinary")]


def test_a_container_that_ends_by_itself_is_told_as_stopped(
    kubelet: Kubelet, busybox: str, session: ObservedSession
) -> None:
    container = kubelet.run_pod(PodSpec("brief")).run(ContainerSpec(busybox, "brief", ("true",)))
    container.wait_exit()
    wait_for(lambda: ("stop", "brief") in session.heard, "the exit to be told")
    assert session.heard.count(("stop", "brief")) == 1


# Around the 4096 bytes of Go's buffered reader, beyond the 5000 at which one frame would lose the connection, and big.
@pytest.mark.parametrize("size_bytes", [1, 4040, 4070, 4096, 5000, 100_000, 3_000_000])
def test_an_annotation_of_any_size_arrives_in_the_oci_spec(
    kubelet: Kubelet, busybox: str, session: ObservedSession, size_bytes: int
) -> None:
    session.decisions["main"] = annotating("x" * size_bytes)
    container = kubelet.run_pod(PodSpec("adjusted")).create(ContainerSpec(busybox, "main", FOREVER))
    assert spec_annotations(container)[ANNOTATION] == "x" * size_bytes
    assert session.connections == ["connected"]


def test_an_adjustment_over_the_message_limit_fails_the_creation_and_not_the_session(
    kubelet: Kubelet, busybox: str, session: ObservedSession
) -> None:
    session.decisions["main"] = annotating("x" * (4 << 20))
    pod = kubelet.run_pod(PodSpec("oversize"))
    with pytest.raises(CriError, match="over ttrpc's limit"):
        pod.create(ContainerSpec(busybox, "main", FOREVER))
    pod.create(ContainerSpec(busybox, "other", FOREVER))
    assert session.asked == ["main", "other"]
    assert session.connections == ["connected"]


def test_a_refusal_is_the_creations_error_and_its_undo_is_told(
    kubelet: Kubelet, busybox: str, session: ObservedSession
) -> None:
    async def refuse() -> ContainerAdjustment:
        raise Refused("MountMissing", "checkpoint needs the mount /ca\udcffche; add it to the pod's volumeMounts")

    session.decisions["main"] = refuse
    pod = kubelet.run_pod(PodSpec("refused"))
    with pytest.raises(CriError) as raised:
        pod.create(ContainerSpec(busybox, "main", FOREVER))
    assert r"MountMissing: checkpoint needs the mount /ca\udcffche; add it to the pod" in str(raised.value)
    wait_for(lambda: ("remove", "main") in session.heard, "the undo")
    assert session.heard == [("synchronize", ""), ("create", "main"), ("stop", "main"), ("remove", "main")]
    pod.run(ContainerSpec(busybox, "other", FOREVER))
    assert session.asked[-1] == "other"


def test_a_decision_that_takes_too_long_fails_the_creation_before_the_runtime_throws_us_out(
    kubelet: Kubelet, busybox: str, session: ObservedSession
) -> None:
    async def dawdle() -> ContainerAdjustment:
        await asyncio.sleep(30)
        return ContainerAdjustment()

    session.decisions["main"] = dawdle
    pod = kubelet.run_pod(PodSpec("late"))
    with pytest.raises(CriError, match=r"AnswerLate: no decision within 1\.7 s"):
        pod.create(ContainerSpec(busybox, "main", FOREVER))
    pod.create(ContainerSpec(busybox, "other", FOREVER))
    assert session.asked == ["main", "other"]
    assert session.connections == ["connected"]


def test_a_field_the_runtime_does_not_know_is_refused_by_us(
    kubelet: Kubelet, busybox: str, session: ObservedSession
) -> None:
    async def replace_arguments() -> ContainerAdjustment:
        return ContainerAdjustment(args=["", "false"])

    session.decisions["main"] = replace_arguments
    pod = kubelet.run_pod(PodSpec("newer"))
    with pytest.raises(CriError, match=r"NriFieldUnsupported: containerd .* cannot adjust args"):
        pod.create(ContainerSpec(busybox, "main", FOREVER))


@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_a_restarted_containerd_is_found_again_and_says_what_runs(
    node: Node, kubelet: Kubelet, busybox: str, session: ObservedSession, how: str
) -> None:
    pod = kubelet.run_pod(PodSpec(f"resident-{how}"))
    pod.run(ContainerSpec(busybox, "resident", FOREVER))
    if how == "terminated":
        node.stop_containerd()
    else:
        node.kill_containerd()
    wait_for(lambda: session.connections == ["connected", "lost"], "the connection to end")
    assert not session.session.ready
    node.start_containerd()
    wait_for(lambda: session.connections == ["connected", "lost", "connected"], "the session to be back")
    assert ("synchronize", "resident") in session.heard
    session.decisions["after"] = annotating("after")
    assert spec_annotations(pod.create(ContainerSpec(busybox, "after", FOREVER)))[ANNOTATION] == "after"


def test_closing_ends_the_connection_and_containers_go_on_being_created(
    node: Node, kubelet: Kubelet, busybox: str
) -> None:
    with ObservedSession(node.path(SOCKET)) as session:
        pod = kubelet.run_pod(PodSpec("left-alone"))
    assert pod.run(ContainerSpec(busybox, "main", FOREVER)).state == RUNNING
    assert session.asked == []
    assert session.connections == ["connected"]


def test_what_we_answer_too_late_would_have_been_ignored(node: Node, kubelet: Kubelet, busybox: str) -> None:
    """The trap itself: past its limit the runtime drops the plugin and creates the container without asking again."""
    with ObservedSession(node.path(SOCKET)) as session:

        async def block() -> ContainerAdjustment:
            time.sleep(2.5)  # on the event loop: the mistake this shows
            return ContainerAdjustment(annotations={ANNOTATION: "late"})

        session.decisions["main"] = block
        container = kubelet.run_pod(PodSpec("stalled")).create(ContainerSpec(busybox, "main", FOREVER))
        assert ANNOTATION not in spec_annotations(container)
        wait_for(lambda: session.connections[:3] == ["connected", "lost", "connected"], "the session to be back")


def test_errors_carry_the_code_of_a_failed_precondition(
    kubelet: Kubelet, busybox: str, session: ObservedSession
) -> None:
    async def refuse() -> ContainerAdjustment:
        raise Refused("MountMissing", "no")

    session.decisions["main"] = refuse
    with pytest.raises(CriError) as raised:
        kubelet.run_pod(PodSpec("coded")).create(ContainerSpec(busybox, "main", FOREVER))
    assert raised.value.code == grpc.StatusCode.FAILED_PRECONDITION
