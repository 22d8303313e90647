"""The main job: a checkpoint of a real container resumes in a new pod, in every image format and mode."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from nri_plugin.containerd import cri_pb2 as cri
from shared.contract import ImageFormat
from tests.e2e.node.counter import CREATED, DELETED, count, counter, printed
from tests.e2e.node.inventory import COLLECTED_S, settled
from tests.e2e.node.kubelet import Container, Kubelet, parse_log
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.specs import SERVICE_ACCOUNT, ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import (
    KEEPS,
    KEEPS_NOTHING,
    Images,
    Mode,
    Taken,
    cgroup_value,
    checkpointed,
    have,
    resumed,
    with_daemon,
)

LIMIT_BYTES = 48 << 20


def assert_log_goes_on(container: Container, taken: Taken, *, natively: bool) -> None:
    """The checkpoint's lines first, then the next numbers.

    When containerd restores by itself it copies the whole log, with the lines written after the process was frozen;
    the restored process writes those once more.
    """
    old = [int(line) for line in taken.logged]
    container.wait_for(lambda each: len(printed(each)) > len(old) + 1, "new numbers")
    numbers = printed(container)
    if not natively:
        assert numbers == list(range(1, len(numbers) + 1))
        return
    assert numbers[: len(old)] == old
    new = numbers[len(old) :]
    assert new == list(range(new[0], new[0] + len(new)))
    since = datetime.fromisoformat(taken.json("config.dump")["checkpointedTime"])
    frozen = [int(line.text) for line in parse_log(taken.member("container.log").decode()) if line.time <= since]
    assert frozen[-1] < new[0] <= old[-1] + 1


def assert_pods_own_identity(container: Container, name: str) -> None:
    """Names, addresses and credentials are the new pod's in every container of it."""
    assert container.sh("hostname") == f"{name}\n"
    assert container.sh("cat /etc/hostname") == f"{name}\n"
    assert f"::1\t{name}\n" in container.sh("cat /etc/hosts")
    assert "nameserver 10.96.0.10" in container.sh("cat /etc/resolv.conf")


@pytest.mark.parametrize("image_format", ["archive", "layered"])
@pytest.mark.parametrize("mode", ["image", "annotation"])
def test_counter_resumes_and_is_an_ordinary_container(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    own_checkpoint: Taken,
    images: Images,
    busybox: str,
    mode: Mode,
    image_format: ImageFormat,
) -> None:
    natively = (node.flavour, mode, image_format) == ("containerd-2.1", "image", "archive")
    image = images.of(own_checkpoint, image_format)
    have(node, image, own_checkpoint.base)
    before = node.inventory()
    name = f"new-{mode}-{image_format}"
    container = resumed(kubelet, own_checkpoint, image, mode, name)
    beside = container.pod.run(ContainerSpec(busybox, "beside", ("sleep", "1000")))

    assert_log_goes_on(container, own_checkpoint, natively=natively)
    seen = count(container)
    assert seen >= int(own_checkpoint.diff("root/held").split()[-1])  # which is never empty
    container.wait_for(lambda each: count(each) > seen, "the counter's file to go on")
    held = [int(line) for line in container.sh("cat /root/held").split()]
    assert held == list(range(1, len(held) + 1)), "the file that was open at the checkpoint"
    assert container.sh(f"cat {CREATED} /etc/changed") == "made\nchanged\n"
    assert container.exec("test", "-e", DELETED).exit_code == 1
    assert container.exec("test", "-e", "/.nri-restore").exit_code == 1
    assert container.sh("ls -A /").split() == beside.sh("ls -A /").split()

    first = next(line for line in container.sh("ps -o pid,args").splitlines() if line.split()[0] == "1")
    assert "sh -c echo made > /root/testfile" in first
    assert "WHEN=at the checkpoint" in container.sh("tr '\\0' '\\n' < /proc/1/environ").splitlines()
    assert_pods_own_identity(container, name)
    assert_pods_own_identity(beside, name)
    assert container.sh(f"cat {SERVICE_ACCOUNT}/token") == f"token of default/{name}\n"

    assert container.stats().cpu.usage_core_nano_seconds.value > 0
    assert container.stats().memory.working_set_bytes.value > 0
    # The CRI's own figure is up to ten seconds old.
    usage = node.ctr("snapshots", "usage", "-b", container.id).splitlines()[1].split()
    assert int(usage[1]) > 0, "what it writes is in its own layer"
    container.update(
        cri.LinuxContainerResources(memory_limit_in_bytes=LIMIT_BYTES, memory_swap_limit_in_bytes=LIMIT_BYTES)
    )
    assert cgroup_value(container.pod, container, "memory.limit_in_bytes", "memory.max") == str(LIMIT_BYTES)

    container.stop(grace_s=10)
    status = container.status()
    assert (status.exit_code, container.logs()[-1]) == (3, "bye")
    assert container.termination_message().startswith("bye at ")
    kubelet.remove_all()
    assert settled(node, before) == {}


@pytest.mark.parametrize("sample", ["containerd21", "kubelet136"])
def test_samples_resume(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    sample_of: Callable[[str], Taken],
    images: Images,
    sample: str,
) -> None:
    taken = sample_of(sample)
    image = images.of(taken, "archive")
    have(node, image, taken.base)
    before = node.inventory()
    container = resumed(kubelet, taken, image, "image", "new")
    assert_log_goes_on(container, taken, natively=node.flavour == "containerd-2.1")
    assert count(container) > len(taken.logged)
    made = sample == "containerd21"
    assert container.exec("test", "-e", "/root/testfile").exit_code == (0 if made else 1)
    assert container.exec("test", "-e", DELETED).exit_code == (1 if made else 0)
    assert " 1 " in container.sh("ps -o pid,args | grep 'sleep 1' | head -n 1 && echo ' 1 '")
    assert_pods_own_identity(container, "new")
    container.stop(grace_s=0)
    assert container.status().exit_code == 137
    kubelet.remove_all()
    assert settled(node, before) == {}


def test_busy_log_loses_no_line_and_doubles_none(
    node_21: Node,
    node_17: Node,
    kubelet_of: Callable[[Node], Kubelet],
    own_checkpoint: Taken,
    images: Images,
    checkpoints: Path,
) -> None:
    """Also not those written between the request for the checkpoint and the freeze."""
    busy = counter(own_checkpoint.base, interval_s=0.002)
    ready = kubelet_of(node_21)
    taken = checkpointed(ready, checkpoints, PodSpec("busy"), busy, lambda each: len(printed(each)) > 20)
    with_daemon(node_17)
    container = resumed(kubelet_of(node_17), taken, images.of(taken, "archive"), "image", "busy-again")
    assert_log_goes_on(container, taken, natively=False)


@pytest.mark.parametrize("mode", ["image", "annotation"])
def test_what_was_prepared_stays_for_the_next_restore(
    node: Node, kubelet: Kubelet, own_checkpoint: Taken, images: Images, mode: Mode
) -> None:
    """The image's lease, and where our own root file system is put below the container's, that; nothing else."""
    with_daemon(node, KEEPS)
    image = images.of(own_checkpoint, "archive")
    have(node, image, own_checkpoint.base)
    before = node.inventory()
    resumed(kubelet, own_checkpoint, image, mode, "first")
    kubelet.remove_all()
    wait_for(lambda: not node.sh("ls -d /run/nri-restore/*/request 2>/dev/null || :"), "the first to be cleaned up")
    wait_for(lambda: len(node.inventory().beyond(before).get("leases", ())) == 1, "only the image's lease to be left")
    kept = node.inventory()
    (lease,) = kept.beyond(before)["leases"]
    digest = lease.removeprefix("nri-restore-")
    stays = {"files": [f"/var/lib/nri-restore/images/{digest}"], "leases": [lease]}
    snapshot = f"nri-restore-rootfs-{digest}"
    if (node.flavour, mode) == ("containerd-1.7", "image"):
        stays["snapshots"] = [snapshot]
    wait_for(
        lambda: node.inventory().beyond(before) == stays,
        f"exactly {stays} to be left",
        timeout_s=COLLECTED_S,
        every_s=0.2,
    )
    made = node.ctr("snapshots", "info", snapshot) if "snapshots" in stays else ""

    second = resumed(kubelet, own_checkpoint, image, mode, "second")
    second.wait_for(lambda each: len(printed(each)) > 6)
    if made:
        assert node.ctr("snapshots", "info", snapshot) == made, "the second uses the first's"
    kubelet.remove_all()
    assert settled(node, kept) == {}
    with_daemon(node, KEEPS_NOTHING)
    assert settled(node, before) == {}, "a daemon that is to keep nothing drops it"
