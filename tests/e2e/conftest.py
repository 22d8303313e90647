"""Nodes for the tests: started when first asked for, kept for the whole session, empty again after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import FLAVOURS, Flavour, base_root
from tests.e2e.node.sweep import sweep


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
