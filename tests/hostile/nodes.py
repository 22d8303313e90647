"""The nodes of a hostile run: one that takes the victims' checkpoints, one that is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.sweep import sweep
from tests.e2e.restoring import Taken
from tests.hostile.attack import Victim
from tests.hostile.generator.kitchen_sink import take_sinks
from tests.hostile.victims import take


@dataclass(frozen=True)
class Nodes:
    node_17: Node
    node_21: Node
    registry: Registry
    folder: Path
    """Where the checkpoints lie."""
    victims: dict[Victim, Taken]

    @cached_property
    def sinks(self) -> dict[Victim, Taken]:
        """Checkpoints with one object of each kind, taken when they are first asked for."""
        return take_sinks(self.node_21, self.registry, self.folder)


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
        yield Nodes(node_17, node_21, registry, folder, take(node_21, registry, folder))
