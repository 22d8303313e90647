"""Nodes for the tests: started when first asked for, kept for the whole session, empty again after each test."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.node.counter import printed
from tests.e2e.node.image import busybox_image, read_archive
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.places import sample
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import FLAVOURS, Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.sweep import sweep
from tests.e2e.restoring import Images, Taken, checkpointed, local, push_base, with_daemon


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    sweep()
    with Network() as network:
        yield network


@pytest.fixture(scope="session")
def registry(network: Network) -> Iterator[Registry]:
    with Registry(network) as registry:
        yield registry


@pytest.fixture(scope="session")
def busybox(registry: Registry) -> str:
    """Reference of the busybox image in the registry: the base image of most tests."""
    return registry.push(busybox_image(base_root("containerd-1.7")), "busybox:1")


@pytest.fixture(scope="session")
def node_of(network: Network, registry: Registry, busybox: str) -> Iterator[Callable[[Flavour], Node]]:
    """The session's node of a flavour, with the registry trusted (as ``localhost:5000`` too) and busybox pulled."""
    with ExitStack() as running:
        nodes: dict[Flavour, Node] = {}

        def get(flavour: Flavour) -> Node:
            if flavour not in nodes:
                node = Node(flavour, network)
                running.enter_context(node)
                node.trust(registry, "localhost:5000")
                # containerd 2.1's own restore pulls the base image without any registry configuration.
                node.relay(registry)
                node.cri.pull_image(busybox)
                nodes[flavour] = node
            return nodes[flavour]

        yield get


@pytest.fixture(scope="session", params=FLAVOURS)
def node(request: pytest.FixtureRequest, node_of: Callable[[Flavour], Node]) -> Node:
    """Each test that asks for it runs once on every flavour."""
    return node_of(request.param)


@pytest.fixture(scope="session")
def node_17(node_of: Callable[[Flavour], Node]) -> Node:
    return node_of("containerd-1.7")


@pytest.fixture(scope="session")
def node_21(node_of: Callable[[Flavour], Node]) -> Node:
    return node_of("containerd-2.1")


@pytest.fixture
def kubelet(node: Node) -> Iterator[Kubelet]:
    """Makes pods on ``node``; all of them are gone after the test."""
    kubelet = Kubelet(node)
    yield kubelet
    kubelet.remove_all()


@pytest.fixture
def kubelet_of() -> Iterator[Callable[[Node], Kubelet]]:
    """A kubelet for any node, for tests that use two; all pods are gone after the test."""
    made: list[Kubelet] = []

    def get(node: Node) -> Kubelet:
        made.append(Kubelet(node))
        return made[-1]

    yield get
    for kubelet in made:
        kubelet.remove_all()


# ---- the daemon and checkpoints ----


@pytest.fixture
def daemon(node: Node) -> Program:
    """Our daemon on ``node``; keeps nothing of a checkpoint image once its last container is gone."""
    return with_daemon(node)


@pytest.fixture(scope="session")
def images(registry: Registry) -> Images:
    """Builds checkpoint images: ``images.of(taken, "archive")``."""
    return Images(registry)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder on the host for checkpoint archives made in this session."""
    return tmp_path_factory.mktemp("checkpoints")


WORKLOAD = (
    "echo made > /root/testfile; rm /etc/motd; echo changed > /etc/changed; exec 3>/root/held; "
    "trap 'echo bye; echo bye at $i > /dev/termination-log; exit 3' TERM; i=0; "
    "while :; do i=$((i+1)); echo $i; echo $i > /root/count; echo $i >&3; sleep 0.1; done"
)
"""A counter that made a file, changed one, deleted one, and holds one open that it appends to."""


@pytest.fixture(scope="session")
def own_checkpoint(node_of: Callable[[Flavour], Node], registry: Registry, checkpoints: Path) -> Taken:
    """A fast counter (WORKLOAD), checkpointed through the CRI of the containerd 2.1 node."""
    image = busybox_image(base_root("containerd-1.7"), {"etc/changed": b"original\n"})
    base = push_base(registry, image, "own:1")
    spec = ContainerSpec(base, "counter", ("sh", "-c", WORKLOAD), env={"WHEN": "at the checkpoint"})
    kubelet = Kubelet(node_of("containerd-2.1"))
    return checkpointed(kubelet, checkpoints, PodSpec("own"), spec, lambda each: len(printed(each)) > 3)


@pytest.fixture(scope="session")
def sample_of(registry: Registry) -> Callable[[str], Taken]:
    """Checkpoints that were not made by this project: ``kubelet136`` and ``containerd21``."""

    def get(name: str) -> Taken:
        archive = sample(f"counter-{name}.tar")
        if not archive.parent.is_dir():
            pytest.skip(f"the folder {archive.parent} with real checkpoints is not there")
        registry.push(read_archive(sample("busybox.tar")), "busybox:sample")
        with tarfile.open(archive) as tar:
            content = tar.extractfile("spec.dump")
            assert content is not None
            args = json.load(content)["process"]["args"]
        kubernetes = name == "kubelet136"
        spec = ContainerSpec(local("busybox:sample"), "counter", tuple(args), termination_log=kubernetes)
        return Taken(archive, spec.image, spec, service_account=kubernetes)

    return get
