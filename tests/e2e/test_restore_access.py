"""Root and volumes that the pod has read-only or writable where the checkpoint did not: made as the pod says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.contract import POD_CHECKPOINT
from tests.e2e.node.cri import CriError
from tests.e2e.node.inventory import settled
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.roots import Flavour
from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount
from tests.e2e.restoring import Images, Taken, checkpointed, have
from tests.hostile.forgery import Forgery
from tests.hostile.users import USER, as_user

_TRYING = (
    "trap 'exec 3>>/held/file' USR1; i=0; while :; do i=$((i+1)); echo $i; "
    "for f in /root/x /data/x /settings/x; do (echo $i > $f) 2>/dev/null; done; sleep 0.1; done"
)
"""Counts, and tries to write to the root and to two volumes; after SIGUSR1 it holds a file of the third open."""
_ON_NODE = "/var/lib/held"
DATA, SETTINGS = VolumeMount("/data", "data"), VolumeMount("/settings", "settings", read_only=True)
HELD = VolumeMount("/held", _ON_NODE)


@pytest.fixture(scope="session")
def trying(node_of: Callable[[Flavour], Node], own_checkpoint: Taken, checkpoints: Path) -> Taken:
    """With a writable root, two writable volumes and a read-only one."""
    kubelet = Kubelet(node_of("containerd-2.1"))
    kubelet.node.sh(f"mkdir -p {_ON_NODE}")
    spec = ContainerSpec(own_checkpoint.base, "trying", ("sh", "-c", _TRYING), mounts=(DATA, SETTINGS, HELD))
    return checkpointed(kubelet, checkpoints, PodSpec("trying"), spec, lambda each: len(each.log()) > 3)


@pytest.fixture(scope="session")
def holding(node_of: Callable[[Flavour], Node], trying: Taken, checkpoints: Path) -> Taken:
    """The same with a file of a volume open for writing."""

    def holds(container: Container) -> bool:
        container.sh("kill -USR1 1")
        return "/held/file" in container.sh("readlink /proc/1/fd/3 || :")

    kubelet = Kubelet(node_of("containerd-2.1"))
    return checkpointed(kubelet, checkpoints, PodSpec("holding"), trying.spec, holds)


def create(kubelet: Kubelet, taken: Taken, image: str, **changes: object) -> Container:
    """To be restored by annotation, the container's spec changed."""
    have(kubelet.node, taken.base)
    kubelet.node.sh(f"mkdir -p {_ON_NODE}")
    spec: ContainerSpec = replace(taken.spec, **changes)  # type: ignore[arg-type]
    return kubelet.run_pod(taken.pod("changed", annotations={POD_CHECKPOINT: image})).create(spec)


def is_read_only(container: Container, path: str) -> bool:
    """The mount at ``path`` itself, not its file system."""
    line = next(each for each in container.sh("cat /proc/1/mountinfo").splitlines() if each.split()[4] == path)
    return "ro" in line.split()[5].split(",")


def may_write(container: Container, path: str) -> bool:
    """The restored process, which tries all the time; an exec must find the same."""
    seen, before = len(container.log()), container.exec("cat", f"{path}/x").stdout
    container.wait_for(lambda each: len(each.log()) > seen + 3, "the counter to go on")
    written = container.exec("cat", f"{path}/x").stdout != before
    tried = container.exec("sh", "-c", f": > {path}/y")
    assert (tried.exit_code == 0) == written
    assert written or "Read-only file system" in tried.stderr
    return written


def test_volume_becomes_read_only_and_another_one_writable(
    node: Node, daemon: Program, kubelet: Kubelet, trying: Taken, images: Images
) -> None:
    mounts = (replace(DATA, read_only=True, recursive=True), replace(SETTINGS, read_only=False), HELD)
    container = create(kubelet, trying, images.of(trying, "archive"), mounts=mounts)
    container.start()
    assert may_write(container, "/root")
    assert not may_write(container, "/data")
    assert may_write(container, "/settings")
    assert is_read_only(container, "/data")
    assert not is_read_only(container, "/settings")


def test_root_becomes_read_only(node: Node, daemon: Program, kubelet: Kubelet, trying: Taken, images: Images) -> None:
    """With the files that the runtime mounts like it; volumes stay as they were."""
    container = create(kubelet, trying, images.of(trying, "archive"), read_only_root=True)
    container.start()
    assert not may_write(container, "/root")
    assert may_write(container, "/data")
    for path in ("/", "/etc/hostname", "/etc/resolv.conf"):
        assert is_read_only(container, path), path
    assert not is_read_only(container, "/etc/hosts")


def test_file_that_is_open_for_writing_is_refused_before_criu_runs(
    node: Node, daemon: Program, kubelet: Kubelet, holding: Taken, images: Images
) -> None:
    mounts = (DATA, SETTINGS, replace(HELD, read_only=True))
    container = create(kubelet, holding, images.of(holding, "archive"), mounts=mounts)
    with pytest.raises(CriError, match="WritableFileOpen") as failure:
        container.start()
    assert "/held/file open there for writing" in failure.value.details
    assert not node.path(f"/run/nri-restore/{container.id}/restoring").exists()


def test_file_that_turns_out_to_be_open_for_writing_undoes_the_restore(
    node: Node, daemon: Program, kubelet: Kubelet, holding: Taken, images: Images, checkpoints: Path
) -> None:
    """The checkpoint says that it lies on another volume, so that only the kernel finds it on this one.

    Believed of a container that may mount alone.
    """
    may_mount = {"add_capabilities": ("SYS_ADMIN",)}
    forgery = Forgery(holding.archive)
    (held,) = (each.reg for each in forgery.opened if each.reg.name == b"/held/file")
    held.mnt_id = forgery.mount("/data").mnt_id
    forged = replace(holding, archive=checkpoints / "held-elsewhere.tar")
    forged.archive.write_bytes(forgery.tar())
    image = images.of(forged, "archive")
    node.sh(f"mkdir -p {_ON_NODE}; : > {_ON_NODE}/file")
    have(node, holding.base, image)
    before = node.inventory()
    writable = create(kubelet, forged, image, **may_mount)
    writable.start()
    assert may_write(writable, "/data"), "it restores where the pod has the volume writable"
    kubelet.remove_all()
    read_only = (DATA, SETTINGS, replace(HELD, read_only=True))
    container = create(kubelet, forged, image, mounts=read_only, **may_mount)
    with pytest.raises(CriError, match="WritableFileOpen: the checkpoint has /held/file open for writing") as failure:
        container.start()
    assert failure.value.details.count("WritableFileOpen") == 1
    assert not container.log()[len(forged.logged) :]
    kubelet.remove_all()
    assert settled(node, before) == {}


def test_link_on_a_volume_is_not_followed_to_what_the_pod_may_not_open(
    node: Node, daemon: Program, kubelet: Kubelet, holding: Taken, images: Images, checkpoints: Path
) -> None:
    """Only what CRIU has opened tells: the pod, or another one, may change the volume at any time."""
    forgery = Forgery(holding.archive)
    forgery.drop_mount("/proc/sys")  # which is put back once the processes are there
    opened = forgery.open_path("/held/link/sys/kernel/core_pattern", flags=os.O_WRONLY)
    assert opened.reg.mnt_id == forgery.mount("/held").mnt_id
    forged = replace(holding, archive=checkpoints / "linked.tar")
    forged.archive.write_bytes(forgery.tar())
    image = images.of(forged, "archive")
    node.sh(f"mkdir -p {_ON_NODE}; : > {_ON_NODE}/file; ln -sfn /proc {_ON_NODE}/link")
    have(node, holding.base, image)
    before = node.inventory()
    container = create(kubelet, forged, image)
    with pytest.raises(CriError, match=r"FileExceeds: .* held/link/sys/kernel/core_pattern .*levels of") as failure:
        container.start()
    assert failure.value.details.count("FileExceeds") == 1
    kubelet.remove_all()
    assert settled(node, before) == {}


@pytest.mark.parametrize(
    ("path", "mode", "flags", "refused"),
    [
        ("/held/secret", 0o600, os.O_RDONLY, "reading"),
        ("/held/secret", 0o600, os.O_WRONLY, "writing"),
        ("/held/shared", 0o640, os.O_RDWR, "writing"),
        ("/held/shared", 0o640, os.O_RDONLY, ""),
        ("/held/own", 0o600, os.O_RDWR, ""),
    ],
    ids=["root-s read", "root-s written", "group-s written", "group-s read", "user-s"],
)
def test_file_of_a_volume_is_open_only_as_a_user_of_the_pod_may_open_it(
    node: Node,
    daemon: Program,
    kubelet: Kubelet,
    trying: Taken,
    images: Images,
    checkpoints: Path,
    path: str,
    mode: int,
    flags: int,
    refused: str,
) -> None:
    """CRIU opens it as root, whoever has it open then."""
    forgery = Forgery(trying.archive)
    as_user(forgery)
    for creds in forgery.creds():
        creds.cap_bnd[:], creds.no_new_privs = [0, 0], 1
    forgery.open_path(path, 0o100000 | mode, flags)
    forged = replace(trying, archive=checkpoints / f"opened{path.replace('/', '-')}-{flags}.tar")
    forged.archive.write_bytes(forgery.tar())
    image = images.of(forged, "archive")
    node.sh(f"mkdir -p {_ON_NODE}; cd {_ON_NODE}; touch secret own shared; chmod 600 secret own; chmod 640 shared")
    node.sh(f"cd {_ON_NODE}; chown {USER}:{USER} own; chown 0:{USER} shared")
    restricted = {"drop_capabilities": ("ALL",), "no_new_privileges": True}
    container = create(kubelet, forged, image, run_as_user=USER, run_as_group=USER, **restricted)
    if refused:
        with pytest.raises(CriError, match=f"FileExceeds: the checkpoint has {path} open for {refused}") as failure:
            container.start()
        assert failure.value.details.count("FileExceeds") == 1
    else:
        container.start()
        assert container.sh("readlink /proc/1/fd/77").strip() == path
