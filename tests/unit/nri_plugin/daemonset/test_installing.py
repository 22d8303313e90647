"""Trees of the program on the node; the runtime's part of it is in tests/unit/nri_plugin/node and tests/e2e."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from nri_plugin.config import Config
from nri_plugin.containerd import cri_pb2 as cri
from nri_plugin.daemon import only_instance
from nri_plugin.daemonset import installing
from shared.errors import RestoreError
from tests.support.fake_containerd import FakeContainerd


class Node:
    """The folder of the program on a node, and in an image beside it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.image = root / "node", root / "image"
        self.configured: list[str] = []
        self.place.mkdir()
        monkeypatch.setattr(installing, "PLACE", self.place)
        monkeypatch.setattr(installing, "CURRENT", self.place / "current")
        monkeypatch.setattr(installing, "enter_node", lambda: None)
        monkeypatch.setattr(installing.cli, "configure", lambda **words: self.configured.append("configure"))
        monkeypatch.setattr(installing.cli, "unconfigure", lambda **words: self.configured.append("unconfigure"))

    def install(self, name: str) -> None:
        tree(self.image / name)
        installing.install(self.image / name)

    @property
    def found(self) -> set[str]:
        return {each.name for each in self.place.iterdir()}


def tree(path: Path) -> None:
    (path / "bin").mkdir(parents=True)
    (path / "bin/python3").write_text(path.name)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_newer_tree_takes_the_place_of_older_and_half_ones(node: Node) -> None:
    node.install("1-a")
    (node.place / "another-program").mkdir()
    tree(node.place / ".1-b.new")
    node.install("2-b")
    assert node.found == {"2-b", "current", "another-program"}
    assert (node.place / "current/bin/python3").read_text() == "2-b"
    assert node.configured == ["configure", "configure"]


def test_tree_that_is_there_is_not_copied_again(node: Node) -> None:
    node.install("1-a")
    (node.place / "1-a/bin/python3").write_text("as it was")
    installing.install(node.image / "1-a")
    assert (node.place / "current/bin/python3").read_text() == "as it was"


@pytest.fixture
def runtime(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeContainerd]:
    """The node's; it has no pods."""
    monkeypatch.setattr(installing, "load", lambda _: config)
    with FakeContainerd(config.runtime.socket) as fake:
        fake.answer("RuntimeService/ListPodSandbox", cri.ListPodSandboxResponse())
        yield fake


def test_uninstall_leaves_what_is_not_ours(node: Node, config: Config, runtime: FakeContainerd) -> None:
    node.install("1-a")
    for each in (config.paths.state, config.paths.plans, config.paths.logs, node.place / "another-program"):
        each.mkdir()
    installing.uninstall()
    assert node.found == {"another-program"}
    (node.place / "another-program").rmdir()
    installing.uninstall()
    assert not node.place.exists()
    assert not config.paths.state.exists() and not config.paths.plans.exists() and config.paths.logs.exists()


def test_uninstall_refuses_while_pods_need_the_program(node: Node, runtime: FakeContainerd) -> None:
    node.install("1-a")
    pods = [
        cri.PodSandbox(metadata=cri.PodSandboxMetadata(name=name, namespace="shop"), runtime_handler=handler)
        for name, handler in (("other", "runc"), ("web", "nri-restore"))
    ]
    runtime.answer("RuntimeService/ListPodSandbox", cri.ListPodSandboxResponse(items=pods))
    with pytest.raises(RestoreError, match=r"delete them first: shop/web$") as refused:
        installing.uninstall()
    assert refused.value.reason == "HandlerInUse"
    assert node.found == {"1-a", "current"} and "unconfigure" not in node.configured


def test_uninstall_waits_for_a_runtime_that_is_away(node: Node, runtime: FakeContainerd) -> None:
    node.install("1-a")
    runtime.fail("RuntimeService/ListPodSandbox", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(RestoreError) as refused:
        installing.uninstall()
    assert refused.value.reason == "RuntimeAway"
    assert node.found == {"1-a", "current"}


def test_uninstall_refuses_beside_another_daemon(node: Node, config: Config, runtime: FakeContainerd) -> None:
    node.install("1-a")
    lock = only_instance(config)
    with pytest.raises(RestoreError) as refused:
        installing.uninstall()
    os.close(lock)
    assert refused.value.reason == "AlreadyRunning"
    assert node.found == {"1-a", "current"}
