"""Trees of the program on the node; the runtime's part of it is in tests/unit/nri_plugin/node and tests/e2e."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nri_plugin.config import Config
from nri_plugin.daemonset import installing
from nri_plugin.instance import only_instance
from nri_plugin.node.in_use import TASKS
from shared.errors import RestoreError
from shared.run import run


class Node:
    """The folder of the program on a node, and in an image beside it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.image = root / "node", root / "image"
        self.configured: list[str] = []
        self.place.mkdir()
        monkeypatch.setattr(installing, "PLACE", self.place)
        monkeypatch.setattr(installing, "CURRENT", self.place / "current")
        monkeypatch.setattr(installing, "TMPFILES", root / "tmpfiles.d/nri-restore.conf")
        monkeypatch.setattr(installing, "enter_node", lambda: None)
        monkeypatch.setattr(installing.cli, "configure", self.configure)
        monkeypatch.setattr(installing.cli, "unconfigure", lambda **words: self.configured.append("unconfigure"))

    def configure(self, *, default: bool, restart: bool, **words: object) -> None:
        assert restart
        self.configured.append("configure --default-runtime" if default else "configure")

    def install(self, name: str, *, default: bool = False) -> None:
        tree(self.image / name)
        installing.install(self.image / name, default=default)

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


def test_handler_becomes_the_default_runtime_when_that_is_asked_for(node: Node) -> None:
    node.install("1-a", default=True)
    assert node.configured == ["configure --default-runtime"]


def test_tree_that_is_there_is_not_copied_again(node: Node) -> None:
    node.install("1-a")
    (node.place / "1-a/bin/python3").write_text("as it was")
    installing.install(node.image / "1-a")
    assert (node.place / "current/bin/python3").read_text() == "as it was"


def test_node_without_room_keeps_what_it_has_and_says_so_in_a_sentence(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.install("1-a")
    small = tmp_path / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], timeout_s=10)
    try:
        shutil.copytree(node.place, small, symlinks=True, dirs_exist_ok=True)
        monkeypatch.setattr(installing, "PLACE", small)
        monkeypatch.setattr(installing, "CURRENT", small / "current")
        tree(node.image / "2-b")
        (node.image / "2-b/large").write_bytes(bytes(128 << 10))
        with pytest.raises(RestoreError, match=r"cannot be put into .*No space left on device") as failed:
            installing.install(node.image / "2-b")
        assert failed.value.reason == "NodeStorageFailed"
        assert {each.name for each in small.iterdir()} == {"1-a", "current"}
    finally:
        run(["umount", small], timeout_s=10)


@pytest.fixture
def here(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(installing, "load", lambda _: config)
    return config


def test_uninstall_leaves_what_is_not_ours(node: Node, here: Config) -> None:
    node.install("1-a")
    for each in (here.paths.state, here.paths.plans, here.paths.logs, node.place / "another-program"):
        each.mkdir()
    installing.uninstall()
    assert node.found == {"another-program"}
    (node.place / "another-program").rmdir()
    installing.uninstall()
    assert not node.place.exists()
    assert not here.paths.state.exists() and not here.paths.plans.exists() and here.paths.logs.exists()


def test_uninstall_refuses_while_the_runtime_needs_the_program(node: Node, here: Config) -> None:
    node.install("1-a")
    bundle = here.runtime.socket.parent / TASKS / "k8s.io/c1"
    bundle.mkdir(parents=True)
    (bundle / "runtime").write_text("/opt/nri-restore/current/site-packages/nri_plugin/runtime/restore-runc")
    with pytest.raises(RestoreError) as refused:
        installing.uninstall()
    assert refused.value.reason == "HandlerInUse"
    assert node.found == {"1-a", "current"} and "unconfigure" not in node.configured


def test_uninstall_refuses_beside_another_daemon(node: Node, here: Config) -> None:
    node.install("1-a")
    lock = only_instance(here)
    with pytest.raises(RestoreError) as refused:
        installing.uninstall()
    os.close(lock)
    assert refused.value.reason == "AlreadyRunning"
    assert node.found == {"1-a", "current"}
