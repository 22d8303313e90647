"""What a pod's annotations choose: start instead of restore, what happens to TCP connections."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared import contract
from shared.contract import ImageFormat
from shared.criu.criu_pb2 import FileEntry
from shared.criu.images import Kind, join, split
from tests.e2e.engines import rewritten, without_in_diff
from tests.e2e.node.counter import printed
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import busybox_image, image_of
from tests.e2e.node.kubelet import EXITED, RUNNING, Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount
from tests.e2e.restoring import Images, Mode, Taken, checkpointed, have, local, push_base, resumed

START_ON_RESTART = {contract.POD_ON_RESTART: "start"}
START_ON_FAILURE = {contract.POD_ON_FAILURE: "start"}


def kill(container: Container) -> None:
    container.pod.node.sh(f"kill -9 {json.loads(container.info())['pid']}")
    container.wait_exit()


def assert_fresh(container: Container) -> None:
    """It began from the beginning, on the base image's files."""
    container.wait_for(lambda each: len(printed(each)) > 2, "numbers")
    assert printed(container)[:3] == [1, 2, 3]
    assert container.sh("head -n 1 /root/held") == "1\n"
    assert container.exec("test", "-e", "/root/from-the-checkpoint").exit_code == 1
    assert container.exec("test", "-e", "/.nri-restore").exit_code == 1


# ---- restart ----


@pytest.mark.parametrize(("mode", "image_format"), [("annotation", "archive"), ("image", "layered")])
def test_restarted_container_starts_afresh_when_the_pod_says_so(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    own_checkpoint: Taken,
    images: Images,
    mode: Mode,
    image_format: ImageFormat,
) -> None:
    image = images.of(own_checkpoint, image_format)
    first = resumed(kubelet, own_checkpoint, image, mode, "restarts", annotations=START_ON_RESTART)
    first.wait_for(lambda each: len(printed(each)) > len(own_checkpoint.logged) + 1, "new numbers")
    kill(first)
    again = first.pod.restart(first)
    again.wait_for(lambda each: len(printed(each)) > 2, "numbers")
    # All at once: the log of a restored one begins so too.
    assert again.log()[0].time > first.log()[-1].time
    assert_fresh(again)


def test_archive_image_has_nothing_to_start_when_it_restarts(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, images: Images
) -> None:
    image = images.of(own_checkpoint, "archive")
    # For this one container; also where containerd restores by itself and has another name for it.
    annotations = {f"{contract.POD_ON_RESTART}.counter": "start"}
    first = resumed(kubelet, own_checkpoint, image, "image", "restarts", annotations=annotations)
    kill(first)
    with pytest.raises(CriError, match="NothingToStart"):
        first.pod.restart(first)


# ---- failure ----


@pytest.fixture(scope="session")
def unrestorable(registry: Registry, own_checkpoint: Taken) -> str:
    """A checkpoint image that is whole, and whose process had come further in a file than one can."""

    def change(files: dict[str, bytes]) -> None:
        without_in_diff("", extra={"root/from-the-checkpoint": b"here\n"})(files)
        name = f"checkpoint/{Kind.FILES.file()}"
        opened = [FileEntry.FromString(piece) for piece in split(files[name], Kind.FILES, name)]
        for entry in opened:
            if entry.reg.name == b"/root/held":
                entry.reg.pos = (1 << 63) - 1
        files[name] = join(Kind.FILES, list(opened))

    annotations = {contract.TRIGGER_CONTAINERD: "counter"}
    registry.push(
        image_of(
            [rewritten(own_checkpoint, change)], {"Cmd": list(own_checkpoint.spec.command)}, annotations=annotations
        ),
        "made/unrestorable:1",
    )
    return local("made/unrestorable:1")


def test_failed_restore_says_why_and_keeps_the_log(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, unrestorable: str
) -> None:
    with pytest.raises(CriError, match="CriuFailed") as failure:
        resumed(kubelet, own_checkpoint, unrestorable, "image", "fails")
    said = failure.value.details
    assert failure.value.method == "StartContainer"
    assert said.count("CriuFailed") == 1
    assert "Can't restore file pos" in said
    pod = kubelet.pods[-1]
    log = f"/var/log/nri-restore/default_fails_{pod.spec.uid}/counter/0/restore.log"
    assert log in said
    assert "Error (criu/" in node.path(log).read_text()
    assert pod.containers[0].state == EXITED


def test_failed_restore_becomes_a_fresh_start_when_the_pod_says_so(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, unrestorable: str
) -> None:
    container = resumed(kubelet, own_checkpoint, unrestorable, "annotation", "starts", annotations=START_ON_FAILURE)
    assert_fresh(container)
    container.stop(grace_s=10)
    assert container.status().exit_code == 3


def test_diff_that_cannot_be_applied_leaves_nothing_of_it_to_a_fresh_start(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, registry: Registry
) -> None:
    link = tarfile.TarInfo("root/link")
    link.type, link.linkname = tarfile.LNKTYPE, "root/nowhere"

    def spoil(files: dict[str, bytes]) -> None:
        without_in_diff("", extra={"root/from-the-checkpoint": b"here\n"}, links=[link])(files)

    annotations = {contract.TRIGGER_CONTAINERD: "counter"}
    registry.push(image_of([rewritten(own_checkpoint, spoil)], {}, annotations=annotations), "made/broken:1")
    have(node, own_checkpoint.base)
    # For all containers of the pod.
    strict = kubelet.run_pod(
        own_checkpoint.pod("strict", annotations={contract.POD_CHECKPOINT: local("made/broken:1")})
    )
    with pytest.raises(CriError, match="RootfsDiffFailed: the checkpoint's rootfs diff cannot be applied") as failure:
        strict.run(own_checkpoint.spec)
    assert failure.value.details.count("RootfsDiffFailed") == 1
    lenient = own_checkpoint.annotated("lenient", local("made/broken:1"), annotations=START_ON_FAILURE)
    assert_fresh(kubelet.run_pod(lenient).run(own_checkpoint.spec))


def test_failed_restore_of_an_archive_image_has_nothing_to_start(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, unrestorable: str
) -> None:
    with pytest.raises(CriError, match="CriuFailed"):
        resumed(kubelet, own_checkpoint, unrestorable, "image", "cannot", annotations=START_ON_FAILURE)


def test_refused_restore_becomes_a_fresh_start_when_the_pod_says_so(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, images: Images
) -> None:
    have(node, own_checkpoint.base)
    image = images.of(own_checkpoint, "archive")
    spec = replace(own_checkpoint.spec, mounts=(VolumeMount("/data", "data"),))
    with pytest.raises(CriError, match="MountUnexpected"):
        kubelet.run_pod(own_checkpoint.annotated("strict", image)).run(spec)
    pod = kubelet.run_pod(own_checkpoint.annotated("lenient", image, annotations=START_ON_FAILURE))
    container = pod.run(spec)
    assert_fresh(container)
    assert container.exec("test", "-d", "/data").exit_code == 0


# ---- TCP ----

_SENDER = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
i=0
while :; do i=$((i+1)); echo $i; sleep 0.1; done
"""
# Not nc: it gives up when its wait is interrupted, which a checkpoint does.
_CONNECTED = (
    "httpd -p 9000 -h /www; wget -q -O /root/received http://127.0.0.1:9000/cgi-bin/send; echo closed; sleep 1000"
)


@pytest.fixture(scope="session")
def connected_checkpoint(node_of: Callable[[Flavour], Node], registry: Registry, checkpoints: Path) -> Taken:
    """Two processes with a TCP connection between them: one sends numbers, the other writes them to a file."""
    node = node_of("containerd-2.1")
    files = {"www/": b"", "www/cgi-bin/": b"", "www/cgi-bin/send": _SENDER.encode()}
    base = push_base(registry, busybox_image(base_root("containerd-1.7"), files), "connected:1")
    spec = ContainerSpec(base, "counter", ("sh", "-c", f"chmod +x /www/cgi-bin/send; {_CONNECTED}"))
    node.sh("mkdir -p /etc/criu; echo tcp-established > /etc/criu/runc.conf")
    try:
        return checkpointed(
            Kubelet(node), checkpoints, PodSpec("connected"), spec, lambda each: len(received(each)) > 3
        )
    finally:
        node.sh("rm /etc/criu/runc.conf")


def received(container: Container) -> list[int]:
    text = container.exec("cat", "/root/received").stdout
    return [int(line) for line in text.splitlines() if text]


def connections(container: Container) -> int:
    """How many ends of established connections there are in the pod's network (state 01 in /proc/net/tcp and tcp6)."""
    return container.sh("cat /proc/net/tcp /proc/net/tcp6").count(" 01 ")


def test_kept_connection_goes_on(
    node: Node, daemon: Program, kubelet: Kubelet, connected_checkpoint: Taken, images: Images
) -> None:
    image = images.of(connected_checkpoint, "archive")
    annotations = {contract.POD_TCP: "established"}
    container = resumed(kubelet, connected_checkpoint, image, "image", "kept", annotations=annotations)
    seen = len(connected_checkpoint.diff("root/received").splitlines())
    container.wait_for(lambda each: len(received(each)) > seen + 3, "new numbers")
    numbers = received(container)
    assert numbers == list(range(1, len(numbers) + 1))
    assert connections(container) == 2
    network = node.sh(f"nsenter -t {json.loads(container.info())['pid']} -n iptables-save")
    assert "CRIU" not in network


def test_connection_is_closed_by_default(
    node: Node, daemon: Program, kubelet: Kubelet, connected_checkpoint: Taken, images: Images
) -> None:
    image = images.of(connected_checkpoint, "archive")
    container = resumed(kubelet, connected_checkpoint, image, "image", "cut")
    container.wait_for(lambda each: "closed" in each.logs(), "the sender to notice")
    assert connections(container) == 0
    assert container.state == RUNNING


def test_checkpoint_with_a_connection_is_refused_when_the_pod_says_so(
    node: Node, daemon: Program, kubelet: Kubelet, connected_checkpoint: Taken, images: Images
) -> None:
    image = images.of(connected_checkpoint, "archive")
    with pytest.raises(CriError, match="TcpEstablished"):
        resumed(kubelet, connected_checkpoint, image, "image", "no", annotations={contract.POD_TCP: "refuse"})
