"""The deb on a node that systemd runs, by the commands of the documents as they stand: from nothing to nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.e2e.conftest import WORKLOAD
from tests.e2e.kubectl import kubectl
from tests.e2e.node.counter import count, counts_without_gap, printed
from tests.e2e.node.dependencies import python_version
from tests.e2e.node.image import busybox_image
from tests.e2e.node.inventory import COLLECTED_S
from tests.e2e.node.kubelet import RUNNING, Container, Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import FLAVOURS, Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.systemd_node import SystemdNode
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Images, Mode, Taken, checkpointed, push_base, resumed
from tests.support.documents import commands
from tools import package

COUNTS = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
VERSION, NEWER = "0.1.0", "0.1.1"
MAY_CHANGE = {
    "/var/log": "logs",
    "/var/cache/apt": "what apt has read of the package database",
    "/var/lib/apt/lists": "folders that apt makes where it has no lists",
    "/var/lib/dpkg/status-old": "dpkg's backup of its database",
    "/var/lib/rpm": "rpm's database",
    "/var/lib/cni/networks": "the last address that CNI gave",
    "/var/lib/kubelet/pods": "the folders of pods",
}


Form = Literal["deb", "rpm"]


@dataclass(frozen=True)
class Packages:
    """A folder for each version, with nri-restore and kubectl-restore in both forms."""

    folders: dict[str, Path]

    def of(self, form: Form, version: str) -> list[Path]:
        return sorted(self.folders[version].glob(f"*.{form}"))


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """What `make package` makes of this checkout, for the nodes' Pythons only, and nri-restore as a newer version."""
    pythons = [python_version(base_root(flavour)) for flavour in FLAVOURS]
    machine = platform.machine()
    architecture = next(name for name, each in package.MACHINES.items() if each == machine)
    folders = {}
    for version in (VERSION, NEWER):
        folders[version] = out = tmp_path_factory.mktemp(version)
        for each in package.PACKAGES[: 2 if version == VERSION else 1]:
            tree = tmp_path_factory.mktemp("tree")
            with pytest.MonkeyPatch.context() as patch:
                project = {**package.project(), "version": version}
                patch.setattr(package, "project", lambda project=project: project)
                package.stage(each, machine, tree, pythons)
                package.deb(each, architecture, tree, out, "fast")
                package.rpm(each, machine, tree, out, "fast")
            shutil.rmtree(tree)
    return Packages(folders)


@pytest.fixture(params=[("containerd-1.7", "deb"), ("containerd-2.1", "deb"), ("containerd-1.7", "rpm")], ids="-".join)
def form(request: pytest.FixtureRequest) -> Form:
    """The form of the packages; ``fresh`` is of the flavour beside it."""
    found: Form = request.param[1]
    return found


@pytest.fixture
def fresh(
    request: pytest.FixtureRequest, form: Form, network: Network, registry: Registry, busybox: str, packages: Packages
) -> Iterator[SystemdNode]:
    """A node that has never heard of us, with a folder for each version, and kubectl."""
    flavour: Flavour = request.node.callspec.params["form"][0]
    with SystemdNode(flavour, network, "fresh") as node:
        node.trust(registry, "localhost:5000")
        node.relay(registry)
        node.cri.pull_image(busybox)
        for version in packages.folders:
            folder = node.path(f"/root/{version}")
            folder.mkdir()
            for each in packages.of(form, version):
                shutil.copyfile(each, folder / each.name)
        # Every system has these; the roots of the nodes were built without documentation.
        node.sh("mkdir -p /usr/share/man/man1 /usr/share/man/man8")
        shutil.copy(kubectl(), node.path("/usr/local/bin/kubectl"))
        yield node


def commands_for(form: Form, document: str, heading: str) -> list[str]:
    """The document's commands; for an rpm, the alternatives beside those for a deb."""
    lines = commands(document, heading)
    if form == "deb":
        return lines
    return [_with_rpm(line.partition("# or: ")[2] or line) for line in lines]


def _with_rpm(line: str) -> str:
    # dnf would look for python3 in rpm's own database, where Debian has nothing.
    for dnf, rpm in (("install", "--install"), ("upgrade", "--upgrade"), ("remove", "--erase")):
        line = line.replace(f"dnf {dnf} ", f"rpm --nodeps {rpm} ")
    return line


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
            inside = f"/{path.relative_to(top)}"
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # it went meanwhile
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
    node.sh(f"mkdir {folder}; printf '[Service]\\nWatchdogSec=3\\nRestartSec=0\\n' > {folder}/hasty.conf")
    node.systemctl("daemon-reload")
    first = main_process(node)
    node.sh(f"kill -KILL {first}")
    second = main_process(node, other_than=first)
    node.sh(f"kill -STOP {second}")
    main_process(node, other_than=second)
    assert int(node.systemctl("show", "--property", "NRestarts", "--value", "nri-restore")) >= 2
    node.sh(f"rm -r {folder}")
    node.systemctl("daemon-reload")


def counting(kubelet: Kubelet, taken: Taken, image: str, mode: Mode) -> Container:
    """The counter of the checkpoint, restored in a pod, once it has gone on without a gap."""
    container = resumed(kubelet, taken, image, mode, f"restored-by-{mode}")
    container.wait_for(lambda each: len(printed(each)) > len(taken.logged) + 1, "new numbers")
    assert counts_without_gap(container)
    return container


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
    form: Form,
    fresh: SystemdNode,
    taken: Taken,
    kubelet_of: Callable[[SystemdNode], Kubelet],
    images: Images,
    busybox: str,
) -> None:
    node, kubelet = fresh, kubelet_of(fresh)
    ordinary = kubelet.run_pod(PodSpec("ordinary")).run(ContainerSpec(busybox, command=("sh", "-c", COUNTS)))
    before, stored = everything(node), store(node)

    said = paste(node, commands_for(form, "install.md", "On each node"), f"/root/{VERSION}")
    assert "+[plugins" in said[1] and "restarted containerd" in said[2]
    assert "ok    daemon" in said[3]

    container = counting(kubelet, taken, images.of(taken, "archive"), "annotation")
    confined = node.sh(f"cat /proc/{main_process(node)}/status")
    assert "\nNoNewPrivs:\t1\n" in confined and "\nSeccomp:\t2\n" in confined, "the unit's sandbox is in force"
    assert node.run(["systemd-analyze", "verify", "--man=no", "nri-restore.service"]).stderr == ""
    if form == "deb":
        ends_and_hangs(node)

    daemon = main_process(node)
    paste(node, commands_for(form, "install.md", "Upgrading"), f"/root/{NEWER}")
    main_process(node, other_than=daemon)
    assert node.sh("nri-restore version") == f"nri-restore {NEWER}\n"
    seen = count(container)
    container.wait_for(lambda each: count(each) > seen, "the counter to go on over the upgrade")
    assert "fail" not in paste(node, commands("install.md", "On each node")[-1:])[0]
    restored_by_newer = counting(kubelet, taken, images.of(taken, "layered"), "image")

    refused = node.run(["sh", "-c", commands_for(form, "uninstall.md", "On the node")[0]], check=False, timeout_s=300)
    assert refused.returncode != 0
    assert "delete their pods first" in refused.stdout + refused.stderr
    assert node.systemctl("is-active", "nri-restore") == "active"
    node.systemctl("stop", "nri-restore")
    for each in (container, restored_by_newer):
        each.stop(grace_s=10)
        assert each.status().exit_code == 3
        each.pod.remove(grace_s=0)
        kubelet.pods.remove(each.pod)
    assert node.sh("ls -d /run/nri-restore/*/restored"), "ended while the daemon was away; that refuses nothing"
    assert store(node) != stored, "what the next restore would use"

    paste(node, commands_for(form, "uninstall.md", "On the node"))
    after = everything(node)
    assert {each for each in {*before, *after} if before.get(each) != after.get(each)} == set()
    wait_for(lambda: store(node) == stored, "the runtime to have nothing of ours", timeout_s=COLLECTED_S)
    assert node.sh("ls -d /run/nri-restore* 2>/dev/null || :") == ""
    assert node.path("/var/log/nri-restore").exists() == (form == "rpm"), "rpm knows no purge"
    assert node.systemctl("list-units", "--all", "--plain", "--no-legend", "nri-restore*") == ""
    assert ordinary.state == RUNNING
    assert counts_without_gap(ordinary)


@pytest.mark.parametrize("form", [("containerd-2.1", "deb"), ("containerd-1.7", "rpm")], ids="-".join, indirect=True)
def test_kubectl_plugin(form: Form, fresh: SystemdNode, own_checkpoint: Taken) -> None:
    before = everything(fresh)
    assert "checkpoint" in paste(fresh, commands_for(form, "kubectl.md", "As a package"), f"/root/{VERSION}")[-1]
    shutil.copyfile(own_checkpoint.archive, fresh.path("/tmp/own.tar"))
    assert "counter" in fresh.sh("kubectl restore inspect /tmp/own.tar")
    fresh.sh("apt-get purge --yes kubectl-restore" if form == "deb" else "rpm --erase kubectl-restore")
    after = everything(fresh)
    assert {each for each in {*before, *after} if before.get(each) != after.get(each)} == set()
