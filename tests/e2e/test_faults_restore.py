"""A restore that is cut short or fails leaves nothing: no process, cgroup, mount or block on a network."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.faults import (
    counts_on,
    criu_hook,
    fresh_image,
    later,
    left_over,
    no_defect,
    processes_naming,
    refused,
    restore_runc,
    restoring_pod,
)
from tests.e2e.node.inventory import Inventory
from tests.e2e.node.kubelet import RUNNING, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.processes import children
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import LIMIT_S, wait_for
from tests.e2e.restoring import Taken, checkpointed


@pytest.fixture(autouse=True)
def daemon_shows_no_defect(request: pytest.FixtureRequest) -> Iterator[None]:
    with no_defect(request.getfixturevalue("node" if "node" in request.fixturenames else "node_17")):
        yield


HANGS = '[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0\ntouch /tmp/restoring\nsleep 100'
FAILS = '[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]'


def undone(node: Node, before: Inventory) -> dict[str, list[str]]:
    """What is left of a restore beside what belongs to the container until it is removed; empty as soon as can be."""
    its_own = {"containers", "tasks", "snapshots", "leases", "files", "content", "images"}
    deadline = time.monotonic() + LIMIT_S
    while True:
        left = node.inventory().beyond(before, ignoring=its_own)
        left["mounts"] = [mount for mount in left.pop("mounts", []) if "/run/nri-restore/views/" not in mount]
        if not any(left.values()) or time.monotonic() > deadline:
            return {kind: entries for kind, entries in left.items() if entries}
        time.sleep(0.1)


def pids_named(node: Node, word: str) -> list[int]:
    """Processes with ``word`` in their command lines, parents before their children."""
    found = [pid for pid, line in node.processes().items() if word in line]
    begun = [pid for pid in found if not any(pid in children(other) for other in found)]
    return begun + [pid for pid in found if pid not in begun]


@pytest.mark.parametrize("cut", ["deadline", "shim killed", "restore-runc killed", "runc killed", "time limit"])
def test_restore_cut_short(
    cut: str, node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    before = node.inventory()
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    if cut != "shim killed":  # The shim is the whole pod's.
        pod.run(ContainerSpec(own_checkpoint.base, "neighbour", ("sleep", "1000")))
    quiet = node.inventory()
    container = pod.create(own_checkpoint.spec)
    with restore_runc(node, restore_s=4 if cut == "time limit" else 90):
        with criu_hook(node, HANGS):
            starting = later(lambda: container.start(deadline_s=4 if cut == "deadline" else 60))
            wait_for(node.path("/tmp/restoring").exists, "CRIU to be in the middle of the restore")
            # What a restore would leave is there: the stopped processes, in the container's cgroup.
            assert pids_named(node, "root/count")
            if cut == "shim killed":
                os.kill(pids_named(node, f"-id {pod.id}")[0], signal.SIGKILL)
            elif cut != "deadline" and cut != "time limit":
                word = (
                    "restore-runc" if cut == "restore-runc killed" else f"/run/nri-restore/{container.id}/work/runc.log"
                )
                os.kill(pids_named(node, word)[0], signal.SIGKILL)
            said = refused(starting.result)
        if cut == "time limit":
            assert "RestoreTimeout: CRIU did not finish within 4 s" in said
        node.path("/tmp/restoring").unlink()
        # Not when the container is removed, which may be much later: at once.
        if cut != "shim killed":
            assert not undone(node, quiet)
            container.wait_exit()  # which containerd notes once it has cleaned up, after a deadline too
            assert pod.containers[0].sh("hostname") == "resumed\n"
            counts_on(pod.restart(container))
        else:
            kubelet.remove_all()
            counts_on(restoring_pod(kubelet, own_checkpoint, image, "again").run(own_checkpoint.spec))
    kubelet.remove_all()
    # containerd forgets the socket of a dead shim.
    assert not left_over(node, before, without=("/run/containerd/s/",) if cut == "shim killed" else ())


CONNECTED = (
    "(sleep 1000 | nc -l -p 7000 >/dev/null) & "
    "until cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1B58 .* 0A '; do sleep 0.1; done; "
    "(sleep 1000 | nc 127.0.0.1 7000 >/dev/null) & until grep -q ' 01 ' /proc/net/tcp; do sleep 0.1; done; i=0; "
    "while :; do i=$((i+1)); echo $i; sleep 0.1; done"
)
"""A counter that holds a TCP connection with itself, so that CRIU locks the network it restores in."""


@pytest.fixture(scope="session")
def connected_checkpoint(own_checkpoint: Taken, node_21: Node, checkpoints: Path) -> Callable[[str], Taken]:
    """The CONNECTED counter, its network locked by ``iptables`` or ``nftables`` when dumped and so when restored."""

    def take(method: str) -> Taken:
        spec = ContainerSpec(own_checkpoint.base, "counter", ("sh", "-c", CONNECTED))
        options = node_21.path("/etc/criu/runc.conf")
        options.parent.mkdir(exist_ok=True)
        options.write_text(f"tcp-established\nnetwork-lock {method}\n")
        pod = PodSpec(f"connected-{method}")
        try:
            return checkpointed(Kubelet(node_21), checkpoints, pod, spec, lambda each: len(each.logs()) > 9)
        finally:
            options.unlink()

    return functools.cache(take)


RULES = "{ iptables-save; ip6tables-save; nft list ruleset; } 2>&1 | grep CRIU"


@pytest.mark.parametrize("method", ["iptables", "nftables"])
def test_failed_restore_leaves_the_pods_network_open(
    method: str,
    node: Node,
    kubelet: Kubelet,
    registry: Registry,
    connected_checkpoint: Callable[[str], Taken],
    daemon: Program,
) -> None:
    taken = connected_checkpoint(method)
    pod = restoring_pod(kubelet, taken, fresh_image(registry, taken), "resumed")
    container = pod.create(taken.spec)
    spec = json.loads(container.info())["runtimeSpec"]
    (path,) = (each["path"] for each in spec["linux"]["namespaces"] if each["type"] == "network")
    rules = f"nsenter --net={path} sh -c '{RULES}'"
    assert node.run(["sh", "-c", rules], check=False).stdout == ""
    fails = f'[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0\n{rules} > /tmp/locked\nexit 1'
    with criu_hook(node, fails):
        said = refused(container.start)
    assert "CriuFailed: CRIU cannot restore the container" in said
    chain = ":CRIU" if method == "iptables" else "table inet CRIU-"
    assert chain in node.path("/tmp/locked").read_text(), "CRIU was to lock the network, or this proves nothing"
    node.sh("rm /tmp/locked")
    assert node.run(["sh", "-c", rules], check=False).stdout == ""
    node.sh(f"ping -c 1 -W 10 {pod.ip}")
    counts_on(pod.restart(container))
    assert node.run(["sh", "-c", rules], check=False).stdout == ""


def test_no_restore_locks_the_nodes_network_and_a_failed_one_unlocks_it(
    node: Node,
    kubelet: Kubelet,
    registry: Registry,
    own_checkpoint: Taken,
    connected_checkpoint: Callable[[str], Taken],
    daemon: Program,
) -> None:
    taken = connected_checkpoint("iptables")
    pod = restoring_pod(kubelet, taken, fresh_image(registry, taken), "connected", host_network=True)
    assert "NamespacesDiffer: the checkpointed container had a network namespace" in refused(
        lambda: pod.run(taken.spec)
    )
    pod = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "resumed", host_network=True)
    # What CRIU does when it has to keep a connection.
    lock = "iptables -N CRIU; iptables -I INPUT -j CRIU; iptables -I OUTPUT -j CRIU; iptables -A CRIU -j DROP"
    with criu_hook(node, f'[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0\n{lock}\nexit 1'):
        container = pod.create(own_checkpoint.spec)
        assert "CriuFailed" in refused(container.start)
    assert node.run(["sh", "-c", RULES], check=False).stdout == ""
    node.sh(f"ping -c 1 -W 10 {registry.machine.address}")
    assert node.sh("hostname").strip() == node.hostname
    counts_on(pod.restart(container))
    assert node.sh("hostname").strip() == node.hostname


def test_failed_restore_keeps_hostname_and_log_and_says_why(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    image = fresh_image(registry, own_checkpoint)
    pod = restoring_pod(kubelet, own_checkpoint, image, "resumed")
    neighbour = pod.run(ContainerSpec(own_checkpoint.base, "neighbour", ("sleep", "1000")))
    with criu_hook(node, FAILS):
        container = pod.create(own_checkpoint.spec)
        said = refused(container.start)
    kept = f"/var/log/nri-restore/default_resumed_{pod.spec.uid}/counter/0/restore.log"
    assert "CriuFailed: CRIU cannot restore the container: " in said
    assert f"(full log: {kept})" in said
    assert "Error" in node.path(kept).read_text()
    assert node.path(kept).parent.stat().st_mode & 0o777 == 0o700
    assert neighbour.sh("hostname") == "resumed\n"
    again = pod.restart(container)
    counts_on(again)
    assert again.sh("hostname") == "resumed\n"
    assert neighbour.sh("hostname") == "resumed\n"
    assert neighbour.state == RUNNING
    wait_for(lambda: not processes_naming(node, "flock"), "what waited for the preparation to end")
