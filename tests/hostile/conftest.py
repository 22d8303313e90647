"""One pair of nodes for the session, and the report of all attacks on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.hostile.attacks  # noqa: F401  registers them
from tests.hostile.attack import ATTACKS, TWINS, to_be_refused, to_be_restored
from tests.hostile.battle import Report, fight
from tests.hostile.nodes import Nodes, nodes
from tests.hostile.real_node import by_image
from tests.hostile.rewriting import twins_of
from tests.hostile.victims import archives_of


@pytest.fixture(scope="session")
def hostile_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("victims")) as found:
        yield found


@pytest.fixture(scope="session")
def report(hostile_nodes: Nodes) -> Report:
    """Every attack that an image can carry, on containerd 1.7, where all of the restore is ours."""
    twins = [
        *by_image(TWINS),
        *by_image(to_be_restored(ATTACKS)),
        *twins_of(ATTACKS, archives_of(hostile_nodes.victims)),
    ]
    return fight(hostile_nodes.node_17, hostile_nodes.victims, by_image(to_be_refused(ATTACKS)), twins)
