"""CRIU restores in a root directory that holds what the restore needs, and in the container's own cgroup namespace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.faults import criu_hook, fresh_image, later, restoring_pod
from tests.e2e.node.cgroup2_node import Cgroup2Node
from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Mode, Taken, checkpointed, have, push_base, resumed, with_daemon

HANGS = """\
[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
touch /tmp/restoring
while [ -e /tmp/restoring ]; do sleep 0.1; done"""
VOLUME = "/srv/volume"


@contextmanager
def held(node: Node, container: Container) -> Iterator[int]:
    """The host's process id of a CRIU in the middle of restoring ``container``."""
    with criu_hook(node, HANGS):
        starting = later(container.start)
        mark = node.path("/tmp/restoring")
        try:
            wait_for(lambda: mark.exists() or starting.done(), "CRIU to be in the middle of the restore")
            assert not starting.done(), starting.result()
            # CRIU calls itself so (criu/cr-service.c, setproctitle).
            yield next(pid for pid, line in node.processes().items() if "restore --rpc" in line)
        finally:
            mark.unlink(missing_ok=True)
            starting.result()


@pytest.fixture(scope="session")
def with_volume(own_checkpoint: Taken, node_21: Node, checkpoints: Path) -> Taken:
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
    node_21.sh(f"mkdir -p {VOLUME}")
    mounts = (VolumeMount("/volume", VOLUME, propagation="HostToContainer"), VolumeMount("/cache", "cache"))
    spec = ContainerSpec(own_checkpoint.base, "counter", ("sh", "-c", script), mounts=mounts)
    return checkpointed(Kubelet(node_21), checkpoints, PodSpec("volume"), spec, lambda each: len(each.logs()) > 3)


def test_criu_finds_what_the_restore_needs_and_nothing_else(
    node: Node, kubelet: Kubelet, registry: Registry, with_volume: Taken, daemon: Program
) -> None:
    node.sh(f"mkdir -p {VOLUME} /etc/kubernetes; touch {VOLUME}/mine /srv/secret")
    other = kubelet.run_pod(PodSpec("other"))
    have(node, with_volume.base)
    other.run(ContainerSpec(with_volume.base, "other", ("sleep", "1000"), mounts=(VolumeMount("/data", "data"),)))
    pod = restoring_pod(kubelet, with_volume, fresh_image(registry, with_volume), "resumed")
    container = pod.create(with_volume.spec)
    with held(node, container) as criu:
        root = Path(f"/proc/{criu}/root")
        assert {each.name for each in (root / "srv").iterdir()} == {"volume"}
        assert (root / "srv/volume/mine").exists()
        assert (root / "usr/bin").is_dir() and os.statvfs(root / "usr").f_flag & os.ST_RDONLY
        assert {each.name for each in (root / "etc").iterdir()} <= {"alternatives", "criu", "ld.so.cache", "selinux"}
        # nothing of other pods, of the kubelet's, or of the runtime's
        assert {each.name for each in (root / "var/lib/kubelet/pods").iterdir()} == {pod.spec.uid}
        assert {each.name for each in (root / "var/lib").iterdir()} <= {"kubelet", "containerd"}
        assert not list((root / "run").rglob("*.sock"))
        assert {each.name for each in (root / "run/nri-restore").iterdir()} == {container.id}
        assert {each.name for each in (root / "run/nri-restore" / container.id).iterdir()} == {"criu.conf"}
        assert {each.name for each in (root / "run/containerd/runc/k8s.io").iterdir()} == {container.id}
        assert {each.name for each in (root / "dev").iterdir()} <= {
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "tty",
            "net",
        }


@pytest.mark.parametrize(
    ("source", "why"),
    [("/etc/nri-restore", "No such file or directory"), ("/proc/1/root/etc/nri-restore", "Invalid argument")],
)
def test_nothing_else_of_the_node_can_be_mounted_where_criu_is(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program, source: str, why: str
) -> None:
    """Not by way of /proc either: the kernel binds nothing of another mount namespace."""
    mount = "import ctypes,os,sys;l=ctypes.CDLL(None,use_errno=True);l.mount(sys.argv[1].encode(),b'/tmp',0,4096,0);"
    mount += "print(os.strerror(ctypes.get_errno()))"
    pod = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "resumed")
    with held(node, pod.create(own_checkpoint.spec)) as criu:
        (inside,) = [
            line.split()[2] for line in Path(f"/proc/{criu}/status").read_text().splitlines() if "NSpid" in line
        ]
        words = ["nsenter", f"--mount=/proc/{inside}/ns/mnt", "/usr/bin/python3", "-c", mount, source]
        assert node.run(words).stdout.strip() == why


def test_what_holds_criu_back_ends_with_the_restore(
    node: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken, daemon: Program
) -> None:
    pod = restoring_pod(kubelet, own_checkpoint, fresh_image(registry, own_checkpoint), "resumed")
    container = pod.run(own_checkpoint.spec)
    wait_for(lambda: not [line for line in node.processes().values() if "own_root.py" in line], "the holder to end")
    left = [line for line in node.path("/proc/1/mountinfo").read_text().splitlines() if f"{container.id}/" in line]
    assert not [line for line in left if "/run/nri-restore/" in line]


# ---- session keyrings ----

_KEYRING = """import ctypes, os, time
number = {"x86_64": 250}.get(os.uname().machine, 219)
while True:
    print(ctypes.CDLL(None).syscall(number, 0, -3, 0), flush=True)
    time.sleep(0.1)"""
_PYTHON = tuple(
    VolumeMount(path, source, read_only=True)
    for path, source in (("/usr", "/usr"), ("/lib", "/usr/lib"), ("/lib64", "/usr/lib64"))
)


@pytest.fixture(scope="session")
def with_keyring(own_checkpoint: Taken, node_21: Node, checkpoints: Path) -> Taken:
    """A program that prints the number of its session keyring, again and again."""
    spec = ContainerSpec(own_checkpoint.base, "keys", ("/usr/bin/python3", "-c", _KEYRING), mounts=_PYTHON)
    return checkpointed(Kubelet(node_21), checkpoints, PodSpec("keys"), spec, lambda each: len(each.logs()) > 3)


def test_restored_containers_have_session_keyrings_of_their_own(
    node_21: Node, registry: Registry, with_keyring: Taken
) -> None:
    """As started ones do: not the runtime's, which others have too."""
    kubelet = Kubelet(node_21)
    with_daemon(node_21)
    have(node_21, with_keyring.base)
    seen = []
    for name in ("one", "two"):
        container = restoring_pod(kubelet, with_keyring, fresh_image(registry, with_keyring), name).run(
            with_keyring.spec
        )
        before = len(container.logs())
        container.wait_for(lambda each, before=before: len(each.logs()) > before + 3, "the program to go on")  # type: ignore[misc]
        seen.append(container.logs()[-1])
    started = kubelet.run_pod(PodSpec("three")).run(with_keyring.spec)
    started.wait_for(lambda each: len(each.logs()) > 3, "the program to start")
    assert len({*seen, started.logs()[-1]}) == 3, seen
    kubelet.remove_all()


# ---- cgroup namespaces, version 2 ----


@pytest.fixture(scope="module")
def unified(network: Network, registry: Registry) -> Iterator[Node]:
    with Cgroup2Node(network, "unified") as node:
        node.trust(registry, "localhost:5000")
        node.relay(registry)
        with_daemon(node)
        yield node


@pytest.mark.parametrize("mode", ["image", "annotation"])
def test_restored_container_is_the_root_of_its_own_cgroup_namespace(
    unified: Node,
    kubelet_of: Callable[[Node], Kubelet],
    registry: Registry,
    checkpoints: Path,
    mode: Mode,
) -> None:
    def seen(container: Container) -> tuple[str, str, str]:
        listed = container.sh("ls /sys/fs/cgroup; grep -x 1 /sys/fs/cgroup/cgroup.procs")
        # The host may have version 1 beside it.
        groups = container.sh("grep -h ^0: /proc/self/cgroup /proc/1/cgroup")
        return groups, listed, container.sh("readlink /proc/1/ns/cgroup")

    kubelet = kubelet_of(unified)
    base = push_base(registry, busybox_image(base_root("containerd-2.1")), "unified:1")
    have(unified, base)
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
    spec = ContainerSpec(base, "counter", ("sh", "-c", script))
    ordinary = kubelet.run_pod(PodSpec("ordinary")).run(spec)
    groups, listed, _ = seen(ordinary)
    assert groups == "0::/\n0::/\n", "an ordinary container was to have its own, or this proves nothing"
    taken = checkpointed(kubelet, checkpoints, PodSpec(f"cg-{mode}"), spec, lambda each: len(each.logs()) > 3)
    container = resumed(kubelet, taken, fresh_image(registry, taken), mode, f"again-{mode}")
    assert seen(container)[:2] == (groups, listed)
    assert seen(container)[2] != unified.sh("readlink /proc/1/ns/cgroup")
    assert container.id in unified.path(f"/proc/{container_pid(unified, container)}/cgroup").read_text()


def container_pid(node: Node, container: Container) -> str:
    folder = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
    return node.path(f"{folder}/{container.id}/init.pid").read_text()
