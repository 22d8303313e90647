"""Watched files are looked for where the kernel told them, like open ones, and nowhere that the pod hides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.judge.open_files import open_file_refusals
from shared.judge.paths import may_mount
from shared.judge.places import opens_on_volumes
from tests.support.checkpoints import SyntheticDump
from tests.support.open_files import INOTIFY, with_every_kind
from tests.support.pods import Security, read, spec

POD = Security(tty=True)


def watching(path: str, mount: str | None) -> SyntheticDump:
    made = with_every_kind(POD)
    watcher: Any = next(each for each in made.images["files.img"] if each.id == INOTIFY)  # type: ignore[attr-defined]
    handle = watcher.ify.wd[0].f_handle
    handle.path = path.encode()
    handle.ClearField("mnt_id")
    if mount is not None:
        handle.mnt_id = made.mount(mount).mnt_id
    return made


@pytest.mark.parametrize(
    ("path", "mount"), [("/data/conf", "/data"), ("/etc", "/"), ("/etc", None), ("/data", "/data")]
)
def test_watch_where_the_kernel_told_it_passes(path: str, mount: str | None) -> None:
    assert list(open_file_refusals(read(watching(path, mount)), spec(POD))) == []


@pytest.mark.parametrize(
    ("path", "mount", "reason"),
    [
        ("/data/conf", "/", "FileExceeds"),
        ("/data/conf", None, "FileExceeds"),
        ("/etc", "/data", "FileExceeds"),
        ("/proc/1/root/etc", "/proc", "FileExceeds"),
        ("/proc/self/fd/1000", "/proc", "FileExceeds"),
        ("/proc/acpi/x", "/proc/acpi", "ProtectedPathOpen"),
    ],
)
def test_watch_elsewhere_is_refused(path: str, mount: str | None, reason: str) -> None:
    found = list(open_file_refusals(read(watching(path, mount)), spec(POD)))
    assert reason in {each.reason for each in found}
    assert path in found[0].sentence


def test_watch_by_way_of_a_link_of_a_tmpfs_is_refused() -> None:
    found = list(open_file_refusals(read(watching("/data/conf", "/data")), spec(POD), frozenset({"/data/conf"})))
    assert "by way of a link" in found[0].sentence


def test_watch_on_a_volume_counts_as_a_file_there() -> None:
    assert opens_on_volumes(read(watching("/data/conf", "/data")))
    assert not opens_on_volumes(read(watching("/data", "/data")))
    assert not opens_on_volumes(read(watching("/etc", None)))


MAY_MOUNT = Security(tty=True, add=("CAP_SYS_ADMIN",))


def test_link_of_a_tmpfs_is_refused_where_the_pod_may_mount_too() -> None:
    found = list(open_file_refusals(read(watching("/data/conf", "/data")), spec(MAY_MOUNT), frozenset({"/data/conf"})))
    assert "by way of a link" in found[0].sentence


@pytest.mark.parametrize("path", ["/mnt/self/fd/126", "/mnt/1/task/1/root/etc", "/mnt/1/cwd"])
def test_process_link_of_a_proc_that_the_processes_mounted_is_refused(path: str) -> None:
    made = watching(path, "/")
    made.add_mount("/mnt", fstype=1, root=b"/", ext_key=None, source=b"proc")
    found = list(open_file_refusals(read(made), spec(MAY_MOUNT)))
    assert any("by way of a process' links" in each.sentence for each in found)


@pytest.mark.parametrize(
    "confined",
    [{"apparmor_profile": "cri-containerd.apparmor.d"}, {"selinux_label": "system_u:system_r:container_t:s0:c1,c2"}],
)
def test_pod_that_its_label_keeps_from_mounting_may_not(confined: dict[str, str]) -> None:
    live = spec(MAY_MOUNT)
    assert may_mount(live)
    assert may_mount(replace(live, selinux_label="system_u:system_r:spc_t:s0", apparmor_profile="unconfined"))
    assert not may_mount(replace(live, **confined))  # type: ignore[arg-type]


def test_socket_by_way_of_a_process_link_is_refused_though_a_tmpfs_is_said_to_be_there() -> None:
    made = with_every_kind(MAY_MOUNT)
    for fstype in (1, 5):
        made.add_mount("/mnt", fstype=fstype, root=b"/", ext_key=None, source=b"x", root_dev=900 + fstype)
    socket = pb.UnixSkEntry(id=777, ino=777, type=1, state=10, name=b"/mnt/self/fd/126/x\0")
    made.add_file(pb.FileEntry(type=5, id=777, usk=socket), descriptor=99)
    found = list(open_file_refusals(read(made), spec(MAY_MOUNT)))
    assert any("/mnt/self/fd/126/x, a file by way of a process' links" in each.sentence for each in found)
