"""The deb on a node that systemd runs, by the commands of the documents as they stand: from nothing to nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.run import run
from tests.e2e.conftest import WORKLOAD
from tests.e2e.node.counter import count, printed
from tests.e2e.node.dependencies import python_version
from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import RUNNING, Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import FLAVOURS, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.systemd_node import SystemdNode
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Images, Taken, checkpointed, push_base, resumed
from tests.support.documents import commands

COUNTS = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
VERSION, NEWER = "0.1.0", "0.1.1"
MAY_CHANGE = {
    "/var/log": "logs",
    "/var/cache/apt": "what apt has read of the package database",
    "/var/lib/apt/lists": "folders that apt makes where it has no lists",
    "/var/lib/dpkg/status-old": "dpkg's backup of its database",
    "/var/lib/cni/networks": "the last address that CNI gave",
    "/var/lib/kubelet/pods": "the folders of pods",
}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By version: the deb of this checkout, for the nodes' Pythons only, and the same as a newer one."""
    out = tmp_path_factory.mktemp("package")
    words = ["--format", "deb", "--package", "nri-restore", "--out", out, "--compress", "fast"]
    for flavour in FLAVOURS:
        words += ["--python", python_version(base_root(flavour))]
    env = {"PYTHONPATH": str(CHECKOUT), "HOME": "/root", "PATH": "/usr/bin:/bin"}
    run([sys.executable, "-m", "tools.package", *words], timeout_s=400, env=env)
    (deb,) = out.glob("*.deb")
    tree, newer = out / "tree", out / deb.name.replace(VERSION, NEWER)
    run(["dpkg-deb", "--raw-extract", deb, tree], timeout_s=60)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace(VERSION, NEWER))
    modules = tree / "usr/lib/nri-restore/site-packages"
    record = (modules / f"nri_restore-{VERSION}.dist-info").rename(modules / f"nri_restore-{NEWER}.dist-info")
    (record / "METADATA").write_text((record / "METADATA").read_text().replace(VERSION, NEWER))
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, newer], timeout_s=60)
    return {VERSION: deb, NEWER: newer}


@pytest.fixture(params=FLAVOURS)
def fresh(
    request: pytest.FixtureRequest,
    network: Network,
    registry: Registry,
    busybox: str,
    packages: dict[str, Path],
) -> Iterator[SystemdNode]:
    """A node that has never heard of us, with a folder for each package."""
    with SystemdNode(request.param, network, "fresh") as node:
        node.trust(registry, "localhost:5000")
        node.relay(registry)
        node.cri.pull_image(busybox)
        for version, package in packages.items():
            folder = node.path(f"/root/{version}")
            folder.mkdir()
            shutil.copyfile(package, folder / package.name)
        yield node


def paste(node: SystemdNode, lines: list[str], folder: str = "/root") -> list[str]:
    """What each command printed; it must end well, and the doctor may warn of what only a cluster has."""
    said = []
    for line in lines:
        done = node.run(["sh", "-c", f"cd {folder} && {line}"], check=False, timeout_s=120)
        warns = "node doctor" in line and done.returncode == 1
        assert done.returncode == 0 or warns, f"{line}: {done.stdout}{done.stderr}"
        said.append(done.stdout)
    return said


def everything(node: SystemdNode) -> dict[str, tuple[str, ...]]:
    """Every file of the root file system: mode, owner, and content or target."""
    top = node.path("/usr").parent
    device = (top / "usr").stat().st_dev
    found: dict[str, tuple[str, ...]] = {}
    for folder, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = Path(folder, name)
            status, inside = path.lstat(), f"/{path.relative_to(top)}"
            if status.st_dev != device or inside in MAY_CHANGE:
                if name in folders:
                    folders.remove(name)
                continue
            content = ""
            if path.is_symlink():
                content = str(path.readlink())
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[inside] = (stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}", content)
    return found


def store(node: SystemdNode) -> str:
    """Leases and snapshots of the runtime, but those that come with an image that was pulled."""
    snapshots = [line.split() for line in node.ctr("snapshots", "ls").splitlines()[1:]]
    named = sorted(words[0] for words in snapshots if not words[0].startswith("sha256:"))
    return "\n".join([*named, node.ctr("leases", "ls", "-q")])


def main_process(node: SystemdNode, *, other_than: str = "0") -> str:
    """Process id of the daemon within the node, once systemd calls its unit active."""

    def shown() -> list[str]:
        words = ["--property", "MainPID", "--property", "ActiveState", "--value"]
        return node.systemctl("show", *words, "nri-restore").split()

    wait_for(lambda: other_than not in shown() and "active" in shown(), "the unit to be active", every_s=0.1)
    return next(word for word in shown() if word.isdecimal())


def ends_and_hangs(node: SystemdNode) -> None:
    """Kills the daemon, then stops it without an end; systemd starts it again each time."""
    folder = "/run/systemd/system/nri-restore.service.d"
    node.sh(f"mkdir {folder}; printf '[Service]\\nWatchdogSec=1\\nRestartSec=0\\n' > {folder}/hasty.conf")
    node.systemctl("daemon-reload")
    first = main_process(node)
    node.sh(f"kill -KILL {first}")
    second = main_process(node, other_than=first)
    node.sh(f"kill -STOP {second}")
    main_process(node, other_than=second)
    assert node.systemctl("show", "--property", "NRestarts", "--value", "nri-restore") == "2"
    node.sh(f"rm -r {folder}")
    node.systemctl("daemon-reload")


@pytest.fixture
def taken(fresh: SystemdNode, registry: Registry, checkpoints: Path, request: pytest.FixtureRequest) -> Taken:
    """A checkpoint that suits the node's cgroup version."""
    if fresh.only_cgroup2:
        base = push_base(registry, busybox_image(base_root("containerd-1.7")), "own-v2:1")
        spec = ContainerSpec(base, "counter", ("sh", "-c", WORKLOAD))
        kubelet = Kubelet(fresh)
        return checkpointed(kubelet, checkpoints, PodSpec("own-v2"), spec, lambda each: len(printed(each)) > 3)
    own: Taken = request.getfixturevalue("own_checkpoint")
    return own


def test_by_the_documents_from_nothing_to_nothing(
    fresh: SystemdNode,
    taken: Taken,
    kubelet_of: Callable[[SystemdNode], Kubelet],
    images: Images,
    busybox: str,
) -> None:
    node, kubelet = fresh, kubelet_of(fresh)
    ordinary = kubelet.run_pod(PodSpec("ordinary")).run(ContainerSpec(busybox, command=("sh", "-c", COUNTS)))
    before, stored = everything(node), store(node)

    said = paste(node, commands("install.md", "On each node"), f"/root/{VERSION}")
    assert "+[plugins" in said[1] and "restarted containerd" in said[2]
    assert "ok    daemon" in said[3]

    image = images.of(taken, "archive")
    container = resumed(kubelet, taken, image, "annotation", "restored")
    container.wait_for(lambda each: len(printed(each)) > len(taken.logged) + 1, "new numbers")
    assert printed(container) == list(range(1, len(printed(container)) + 1))

    ends_and_hangs(node)
    daemon = main_process(node)
    paste(node, commands("install.md", "Upgrading"), f"/root/{NEWER}")
    main_process(node, other_than=daemon)
    assert node.sh("nri-restore version") == f"nri-restore {NEWER}\n"
    seen = count(container)
    container.wait_for(lambda each: count(each) > seen, "the counter to go on over the upgrade")

    refused = node.run(["sh", "-c", commands("uninstall.md", "On the node")[0]], check=False, timeout_s=60)
    assert refused.returncode != 0
    assert "delete their pods first" in refused.stdout + refused.stderr
    assert node.systemctl("is-active", "nri-restore") == "active"
    container.stop(grace_s=10)
    assert container.status().exit_code == 3
    container.pod.remove(grace_s=0)
    kubelet.pods.remove(container.pod)
    wait_for(lambda: not node.sh("ls -d /run/nri-restore/*/restored 2>/dev/null || :"), "the plan to be removed")
    assert store(node) != stored, "what the next restore would use"

    paste(node, commands("uninstall.md", "On the node"))
    after = everything(node)
    assert {each for each in {*before, *after} if before.get(each) != after.get(each)} == set()
    wait_for(lambda: store(node) == stored, "the runtime to have nothing of ours")
    assert node.sh("ls -d /run/nri-restore* /var/log/nri-restore* 2>/dev/null || :") == ""
    assert node.systemctl("list-units", "--all", "--plain", "--no-legend", "nri-restore*") == ""
    assert ordinary.state == RUNNING
    assert printed(ordinary) == list(range(1, len(printed(ordinary)) + 1))
