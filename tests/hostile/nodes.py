"""The nodes of a hostile run: one that takes the victims' checkpoints, one that is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.sweep import sweep
from tests.e2e.restoring import Taken
from tests.hostile.attack import Victim
from tests.hostile.victims import take


@dataclass(frozen=True)
class Nodes:
    node_17: Node
    node_21: Node
    victims: dict[Victim, Taken]


@contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """Both nodes, with checkpoints of every victim in ``folder``."""
    sweep()
    with (
        Network() as network,
        Registry(network) as registry,
        Node("containerd-1.7", network) as node_17,
        Node("containerd-2.1", network) as node_21,
    ):
        for node in (node_17, node_21):
            node.trust(registry, "localhost:5000")
            node.relay(registry)
        yield Nodes(node_17, node_21, take(node_21, registry, folder))
