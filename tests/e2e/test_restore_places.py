"""Where a checkpoint resumes: networks, cgroups, beside and at once with others, again after a kill, and again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shared.contract import POD_CHECKPOINT, ImageFormat
from tests.e2e.node.counter import CREATED, DELETED, counter, printed, take_checkpoint
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import busybox_image
from tests.e2e.node.inventory import settled
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.restoring import Images, Mode, Taken, checkpointed, have, push_base, resumed, with_daemon

_SERVER = (
    "echo first > /www/index.html; httpd -p 8080 -h /www; i=0; while [ ! -e /www/go ]; do i=$((i+1)); sleep 0.1; done; "
    "wget -q -O /www/fetched http://{registry}/v2/ && echo reached; sleep 1000"
)


@pytest.fixture(scope="session")
def server_checkpoint(node_of: Callable[[Flavour], Node], registry: Registry, checkpoints: Path) -> Taken:
    """A web server on port 8080, and a shell beside it that fetches from the registry once /www/go is there."""
    base = push_base(registry, busybox_image(base_root("containerd-1.7"), {"www/": b""}), "server:1")
    script = _SERVER.format(registry=registry.address)
    spec = ContainerSpec(base, "server", ("sh", "-c", script))

    fetched = "wget -q -O - http://127.0.0.1:8080/"
    closed = "while cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1F90 .* 0[18] '; do sleep 0.01; done"

    def serves(container: Container) -> bool:
        """And holds no connection any more, which CRIU would not dump."""
        return container.exec("sh", "-c", f"{fetched} && {closed}").exit_code == 0

    return checkpointed(Kubelet(node_of("containerd-2.1")), checkpoints, PodSpec("server"), spec, serves)


@pytest.fixture(scope="session")
def node_network_checkpoint(node_of: Callable[[Flavour], Node], registry: Registry, checkpoints: Path) -> Taken:
    """A counter in a pod with hostNetwork."""
    base = push_base(registry, busybox_image(base_root("containerd-1.7"), {"etc/net": b""}), "nodenet:1")
    pod = PodSpec("node-net", host_network=True)
    kubelet = Kubelet(node_of("containerd-2.1"))
    return checkpointed(kubelet, checkpoints, pod, counter(base), lambda each: len(printed(each)) > 3)


@contextmanager
def node_unharmed(node: Node, registry: Registry) -> Iterator[None]:
    """The node keeps its host name at every moment, and its network."""
    watch = (
        "import socket, sys, time\n"
        f"while socket.gethostname() == '{node.hostname}': time.sleep(0.001)\n"
        "print('the node was called', socket.gethostname(), flush=True)"
    )
    watching = node.spawn(["python3", "-c", watch], "/var/log/hostname-watch.log")
    try:
        yield
        assert watching.running, watching.output()
    finally:
        watching.kill()
    assert not [rule for rule in node.inventory().firewall if "CRIU" in rule]
    assert node.run(["python3", "-c", f"import urllib.request as u; u.urlopen('http://{registry.address}/v2/')"])


def network_namespace(container: Container) -> str:
    process = json.loads(container.info())["pid"]
    return container.pod.node.sh(f"readlink /proc/{process}/ns/net")


def test_server_is_reached_at_the_new_address_and_reaches_out(
    node: Node, daemon: Program, kubelet: Kubelet, server_checkpoint: Taken, images: Images
) -> None:
    container = resumed(kubelet, server_checkpoint, images.of(server_checkpoint, "archive"), "image", "moved")
    fetch = (
        f"import urllib.request as u; print(u.urlopen('http://{container.pod.ip}:8080/', timeout=300).read().decode())"
    )
    assert node.run(["python3", "-c", fetch]).stdout.strip() == "first"
    assert container.exec("wget", "-q", "-O", "-", "http://127.0.0.1:8080/").stdout == "first\n"
    container.sh("touch /www/go")
    container.wait_for(lambda each: "reached" in each.logs(), "the restored shell to reach the registry")


def test_node_network_into_node_network(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    node_network_checkpoint: Taken,
    images: Images,
    registry: Registry,
) -> None:
    image = images.of(node_network_checkpoint, "archive")
    with node_unharmed(node, registry):
        container = resumed(kubelet, node_network_checkpoint, image, "image", "in-node", host_network=True)
        container.wait_for(lambda each: len(printed(each)) > 6, "new numbers")
        assert container.sh("hostname").strip() == node.hostname
        assert network_namespace(container) == node.sh("readlink /proc/1/ns/net")


def test_pod_network_into_node_network(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, images: Images, registry: Registry
) -> None:
    """The pod asks for more than the dump had; the dump's host name must not become the node's."""
    with node_unharmed(node, registry):
        container = resumed(
            kubelet, own_checkpoint, images.of(own_checkpoint, "archive"), "image", "out", host_network=True
        )
        container.wait_for(lambda each: len(printed(each)) > 6, "new numbers")
        assert container.sh("hostname").strip() == node.hostname
        assert network_namespace(container) == node.sh("readlink /proc/1/ns/net")


def test_node_network_into_pod_network_is_refused(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    node_network_checkpoint: Taken,
    images: Images,
    registry: Registry,
) -> None:
    """CRIU would leave the processes in the node's network, whatever the pod says."""
    image = images.of(node_network_checkpoint, "archive")
    with node_unharmed(node, registry):
        with pytest.raises(CriError, match="NamespacesDiffer") as failure:
            resumed(kubelet, node_network_checkpoint, image, "image", "caught")
        assert failure.value.details.count("NamespacesDiffer") == 1
        assert "hostNetwork: true" in failure.value.details


def test_other_cgroup_parent(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, images: Images
) -> None:
    parent = "/kubepods/guaranteed/own"
    image = images.of(own_checkpoint, "archive")
    container = resumed(kubelet, own_checkpoint, image, "image", "elsewhere", cgroup_parent=parent)
    process = json.loads(container.info())["pid"]
    groups = {line.split(":", 2)[2] for line in node.sh(f"cat /proc/{process}/cgroup").splitlines()}
    assert groups <= {f"{parent}/{container.id}", "/init", "/"}
    assert f"{parent}/{container.id}" in groups


@pytest.mark.parametrize("mode", ["image", "annotation"])
def test_two_at_once_of_one_image_and_of_two(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    own_checkpoint: Taken,
    server_checkpoint: Taken,
    images: Images,
    mode: Mode,
) -> None:
    own, server = images.of(own_checkpoint, "archive"), images.of(server_checkpoint, "archive")
    have(node, own, server, own_checkpoint.base, server_checkpoint.base)
    before = node.inventory()
    annotations, counters, servers = {}, own_checkpoint.restored(own), server_checkpoint.restored(server)
    if mode == "annotation":
        annotations = {f"{POD_CHECKPOINT}.counter": own, f"{POD_CHECKPOINT}.server": server}
        counters, servers = own_checkpoint.spec, server_checkpoint.spec
    first = kubelet.run_pod(own_checkpoint.pod("first", annotations=annotations))
    second = kubelet.run_pod(own_checkpoint.pod("second", annotations=annotations))
    with ThreadPoolExecutor(3) as threads:
        running = [
            threads.submit(pod.run, spec) for pod, spec in ((first, counters), (second, counters), (first, servers))
        ]
        one, two, third = (each.result() for each in running)
    for each in (one, two):
        each.wait_for(lambda each: len(printed(each)) > 6, "new numbers")
    one.sh("echo mine > /root/mine")
    assert two.exec("test", "-e", "/root/mine").exit_code == 1
    assert third.exec("wget", "-q", "-O", "-", "http://127.0.0.1:8080/").stdout == "first\n"
    assert one.exec("wget", "-q", "-O", "-", "http://127.0.0.1:8080/").stdout == "first\n", "one pod, one network"
    kubelet.remove_all()
    assert settled(node, before) == {}


def test_killed_container_is_restored_again(
    node: Node, daemon: Program, kubelet: Kubelet, own_checkpoint: Taken, images: Images
) -> None:
    first = resumed(kubelet, own_checkpoint, images.of(own_checkpoint, "archive"), "image", "killed")
    first.wait_for(lambda each: len(printed(each)) > 8, "new numbers")
    node.sh(f"kill -9 {json.loads(first.info())['pid']}")
    assert first.wait_exit().exit_code == 137
    second = first.pod.restart(first)
    second.wait_for(lambda each: len(printed(each)) > 8, "new numbers")
    assert second.attempt == 1
    assert printed(second)[:6] == printed(first)[:6], "from the checkpoint again"
    assert second.sh("cat /root/held | head -n 1") == "1\n"
    assert second.exec("test", "-e", DELETED).exit_code == 1


def assert_moved_on(container: Container, frozen_at: int) -> None:
    """A restored counter that goes on after ``frozen_at``, with the files of its first life."""
    container.wait_for(lambda each: printed(each)[-1:] > [frozen_at], "the counter to go on")
    assert container.sh(f"cat {CREATED} /etc/changed") == "made\nchanged\n"
    assert container.exec("test", "-e", DELETED).exit_code == 1
    held = [int(line) for line in container.sh("cat /root/held").split()]
    assert held == list(range(1, len(held) + 1))
    assert held[-1] > frozen_at


@pytest.mark.parametrize("image_format", ["archive", "layered"])
@pytest.mark.parametrize("mode", ["image", "annotation"])
def test_second_checkpoint_resumes_on_both_nodes(
    node_21: Node,
    node_17: Node,
    kubelet_of: Callable[[Node], Kubelet],
    own_checkpoint: Taken,
    images: Images,
    checkpoints: Path,
    mode: Mode,
    image_format: ImageFormat,
) -> None:
    """Restored on a containerd 2.1 node, checkpointed there through the CRI, restored on both."""
    for node in (node_21, node_17):
        with_daemon(node)
    kubelet = kubelet_of(node_21)
    first = resumed(kubelet, own_checkpoint, images.of(own_checkpoint, image_format), mode, "first")
    began = len(own_checkpoint.logged) + 3
    assert_moved_on(first, began)
    location = take_checkpoint(node_21, first)
    archive = checkpoints / f"second-{mode}-{image_format}.tar"
    shutil.copyfile(node_21.path(location), archive)
    base = images.of(own_checkpoint, "layered") if (mode, image_format) == ("image", "layered") else own_checkpoint.base
    second = replace(own_checkpoint, archive=archive, base=base)
    frozen_at = int(second.diff("root/held").split()[-1])
    assert frozen_at >= began
    seen = printed(first)[-1]
    first.wait_for(lambda each: printed(each)[-1] > seen, "the first to go on after its checkpoint")
    kubelet.remove_all()
    for node in (node_21, node_17):
        again = resumed(kubelet_of(node), second, images.of(second, image_format), "image", "second")
        assert_moved_on(again, frozen_at)


def test_restored_container_is_dumped_by_the_runtime_of_containerd_17(
    node_17: Node, kubelet_of: Callable[[Node], Kubelet], own_checkpoint: Taken, images: Images
) -> None:
    """There is no CRI call for it there; what the runtime can do, whoever asks it."""
    with_daemon(node_17)
    kubelet = kubelet_of(node_17)
    container = resumed(kubelet, own_checkpoint, images.of(own_checkpoint, "archive"), "image", "dumped")
    container.wait_for(lambda each: len(printed(each)) > 8, "new numbers")
    runc = "runc --root /run/containerd/runc/k8s.io checkpoint --leave-running"
    node_17.sh(f"mkdir /tmp/dump /tmp/work; {runc} --image-path /tmp/dump --work-path /tmp/work {container.id}")
    assert node_17.path("/tmp/dump/inventory.img").exists()
    node_17.sh("rm -r /tmp/dump /tmp/work")
    seen = printed(container)[-1]
    container.wait_for(lambda each: printed(each)[-1] > seen, "the counter to go on")
