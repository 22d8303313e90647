"""Links that somebody puts on a volume lead CRIU nowhere, whatever it makes there as root before the processes run."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.contract import POD_CHECKPOINT
from tests.e2e.node.counter import counter, printed
from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.roots import Flavour
from tests.e2e.node.specs import PodSpec, VolumeMount
from tests.e2e.refusal_bench import reference
from tests.e2e.restoring import Taken, checkpointed, have
from tests.e2e.spoilt_images import Archive, archive_image, delete_all, import_all
from tests.hostile.attacks.unix_sockets import bound, deleted
from tests.hostile.forgery import Forgery

ON_NODE = "/var/lib/linked"
SECRET_PLACE = "/etc/linked-to"
"""On the node, not in the container."""


@pytest.fixture(scope="session")
def on_volume(node_of: Callable[[Flavour], Node], own_checkpoint: Taken, checkpoints: Path) -> Taken:
    """A counter with a folder of the node mounted."""
    kubelet = Kubelet(node_of("containerd-2.1"))
    kubelet.node.sh(f"mkdir -p {ON_NODE}")
    spec = replace(counter(own_checkpoint.base), mounts=(VolumeMount("/data", ON_NODE),))
    return checkpointed(kubelet, checkpoints, PodSpec("on-volume"), spec, lambda each: len(printed(each)) > 3)


def socket_at(path: str) -> Callable[[Forgery], None]:
    return lambda forgery: bound(forgery, path)


def deleted_at(path: str) -> Callable[[Forgery], None]:
    return lambda forgery: deleted(forgery, path)


def restored(kubelet: Kubelet, taken: Taken, change: Callable[[Forgery], None]) -> Container:
    """Its counter, from the changed dump; raises CriError where it does not start."""
    node = kubelet.node
    have(node, taken.base)
    forgery = Forgery(taken.archive)
    change(forgery)
    archive = kubelet.node.path("/var/lib/linked.tar")
    archive.write_bytes(forgery.tar())
    import_all(node, {reference("linked"): archive_image(Archive.read(archive.read_bytes()))})
    try:
        pod = kubelet.run_pod(taken.pod("linked", annotations={POD_CHECKPOINT: reference("linked")}))
        container = pod.create(taken.spec)
        container.start()
        return container
    finally:
        archive.unlink()
        delete_all(node, [reference("linked")])


@pytest.mark.parametrize("change", [socket_at, deleted_at])
def test_link_on_a_volume_is_not_followed(
    change: Callable[[str], Callable[[Forgery], None]], node: Node, daemon: Program, kubelet: Kubelet, on_volume: Taken
) -> None:
    node.sh(f"mkdir -p {ON_NODE} {SECRET_PLACE} && ln -sfn {SECRET_PLACE} {ON_NODE}/link")
    before = node.sh(f"stat -c '%y %z' {SECRET_PLACE}")
    with pytest.raises(CriError, match="Too many levels of symbolic links"):
        restored(kubelet, on_volume, change("/data/link/x"))
    assert node.sh(f"stat -c '%y %z' {SECRET_PLACE}") == before


def test_socket_on_a_volume_that_the_pod_has_read_only_is_not_touched(
    node: Node, daemon: Program, kubelet: Kubelet, on_volume: Taken
) -> None:
    node.sh(f"mkdir -p {ON_NODE}")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(node.path(f"{ON_NODE}/there.sock")))
    before = node.sh(f"stat -c '%i %U %a %y %z' {ON_NODE} {ON_NODE}/there.sock")
    readers = replace(on_volume, spec=replace(on_volume.spec, mounts=(VolumeMount("/data", ON_NODE, read_only=True),)))
    with pytest.raises(CriError, match=r"SocketExceeds: .* has /data read-only"):
        restored(kubelet, readers, socket_at("/data/there.sock"))
    assert node.sh(f"stat -c '%i %U %a %y %z' {ON_NODE} {ON_NODE}/there.sock") == before


@pytest.mark.parametrize("change", [socket_at, deleted_at])
def test_links_are_followed_again_in_what_was_restored(
    change: Callable[[str], Callable[[Forgery], None]], node: Node, daemon: Program, kubelet: Kubelet, on_volume: Taken
) -> None:
    node.sh(f"mkdir -p {ON_NODE} && rm -f {ON_NODE}/x")
    container = restored(kubelet, on_volume, change("/data/x"))
    container.sh("echo here > /data/there && ln -sfn there /data/link && cat /data/link")
    container.sh("echo here > /root/there && ln -sfn there /root/link && cat /root/link")
    assert "nosymfollow" not in container.sh("cat /proc/1/mountinfo")
