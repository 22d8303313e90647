"""The same attacks as a user would make them: an image, a pod, CreateContainer, StartContainer."""

from __future__ import annotations

import re

from tests.e2e.node.kubelet import Kubelet
from tests.e2e.restoring import have, with_daemon
from tests.hostile.attack import ATTACKS, Attack, Twin, to_be_refused
from tests.hostile.battle import Report, fight
from tests.hostile.nodes import Nodes
from tests.hostile.real_node import Battle, Tried, by_image, refused_as

MEMORY_BYTES_MAX = 512 << 20
SECONDS_MAX = 30
"""Of one attack, on a machine that does other things too."""
NOT_OURS = frozenset({"MemberKind", "MemberName", "MetadataMissing", "MetadataMalformed", "FileTooLarge"})
"""What containerd 2.1's own restore, which reads the metadata first, refuses in words of its own."""


def test_every_attack_is_refused_with_its_own_code_before_criu_runs(report: Report) -> None:
    print(report.line())
    assert report.accepted == []


def test_no_attack_and_no_twin_leaves_anything_on_the_node(report: Report) -> None:
    assert report.effects == []


def test_every_twin_restores(report: Report) -> None:
    assert report.twins_refused == []


def test_memory_and_time_are_bounded(report: Report) -> None:
    assert 0 < report.memory_bytes < MEMORY_BYTES_MAX
    assert report.slowest < SECONDS_MAX


def one_of_each(attacks: list[Attack]) -> list[Attack]:
    """The first attack of every code and victim."""
    return list({(attack.reason, attack.victim): attack for attack in reversed(attacks)}.values())


def test_containerds_own_restore_is_no_way_around(hostile_nodes: Nodes) -> None:
    def refused(tried: Tried, reason: str) -> bool:
        return refused_as(tried, reason) or (reason in NOT_OURS and tried.details != "" and not tried.criu_ran)

    chosen = [attack for attack in one_of_each(by_image(to_be_refused(ATTACKS))) if not attack.by_node]
    report = fight(hostile_nodes.node_21, hostile_nodes.victims, chosen, [], refused=refused)
    assert report.accepted == []
    assert report.effects == []


def test_what_was_checked_cannot_change_before_it_is_used(hostile_nodes: Nodes) -> None:
    """The view is a read-only mount of a committed snapshot: not even root on the node writes to it."""
    node = hostile_nodes.node_17
    for taken in hostile_nodes.victims.values():
        have(node, taken.base)
    with_daemon(node)
    battle = Battle(Kubelet(node), hostile_nodes.victims)
    battle.prepare()
    try:
        itself = Twin("itself", lambda forgery: None)
        ((_, image),) = battle.images([itself])
        tried, container = battle.try_out(itself, image, "itself")
        assert container is not None, tried.details
        (view,) = node.sh("ls -d /run/nri-restore/views/*/image").split()
        assert re.search(rf" {view} \S+ ro,", node.sh("cat /proc/mounts"))
        for name in ("config.dump", "checkpoint/core-1.img", "checkpoint/new"):
            said = node.sh(f"sh -c 'echo x > {view}/{name}' 2>&1 || :")
            assert "Read-only file system" in said
        assert "Read-only file system" in node.sh(f"rm -f {view}/config.dump 2>&1 || :")
        assert node.sh("stat -c %a /run/nri-restore /run/nri-restore/*/request").split()[0] == "700"
        battle.end(container)
    finally:
        battle.kubelet.remove_all()
