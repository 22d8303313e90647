from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.criu.criu_pb2 import (
    FileEntry,
    FileLockEntry,
    GhostFileEntry,
    InetSkEntry,
    RemapFilePathEntry,
    SeccompEntry,
    SeccompFilter,
)
from shared.criu.dump import GhostFile, read_dump
from tests.support.checkpoints import SyntheticDump

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]


def test_ordinary_dump(dumped: Dumped) -> None:
    found = read_dump(dumped(SyntheticDump.of_processes(2, pages=3)))
    assert [task.pid for task in found.tasks] == [1, 2]
    assert found.root.pid == 1
    assert (found.hostname, found.domainname, found.pod.network_key) == ("app-pod", "(none)", "extRootNetNS")
    assert found.pod.ipc_sysctls["kernel.sem"] == "32000 1024000000 500 32000"
    assert found.pod.ipc_sysctls["kernel.msgmax"] == "8192"
    assert found.pod.ipc_sysctls["kernel.shmmax"] == str((1 << 64) - 1)
    assert found.pod.ipc_sysctls["kernel.shmall"] == "0"
    assert (found.ghosts, found.seccomp_filters, found.file_locks) == ((), 0, 0)
    assert (found.sockets_established, found.nested_namespaces, found.user_namespace) == (False, False, False)
    assert found.memory_bytes == 2 * 3 * 4096
    assert {mount.mountpoint for mount in found.mounts} == {"/", "/proc", "/dev", "/dev/pts", "/sys"}
    cwd = found.regular_file(found.root.cwd_file)
    assert cwd is not None
    assert cwd.path == "/"
    assert found.regular_file(3) is None
    assert "pages-1.img" in found.images


def test_dump_that_lies_elsewhere(dumped: Dumped) -> None:
    assert read_dump(dumped(SyntheticDump.of_processes().files("a/b")), directory="a/b").root.pid == 1


def test_dump_with_the_nodes_own_namespaces_sets_nothing_in_them(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.ids(1).uts_ns_id, dump.ids(1).ipc_ns_id = 4, 3
    for name in ("utsns-12.img", "ipcns-var-11.img", "netns-10.img"):
        del dump.images[name]
    found = read_dump(dumped(dump))
    assert (found.hostname, found.domainname, found.pod.ipc_sysctls, found.pod.network_key) == (None, None, {}, None)


def test_namespaces_below_the_containers_own(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.ids(2).pid_ns_id = 99
    assert read_dump(dumped(dump)).nested_namespaces


def test_user_namespace(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.ids(1).user_ns_id = 70
    assert read_dump(dumped(dump)).user_namespace


def test_mounts_of_every_mount_namespace(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.nest_mounts(2)
    assert [mount.namespace for mount in read_dump(dumped(dump)).mounts] == [13] * 5 + [14] * 5


def test_established_connection(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    socket = InetSkEntry(id=50, family=2, type=1, proto=6, state=1, src_addr=[1], dst_addr=[2])
    dump.add_file(FileEntry(type=4, id=50, isk=socket), descriptor=9)
    assert read_dump(dumped(dump)).sockets_established


def test_ghost_files_with_their_device_numbers(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["remap-fpath.img"] = [
        RemapFilePathEntry(orig_id=1, remap_id=26, remap_type=1),
        RemapFilePathEntry(orig_id=2, remap_id=2, remap_type=0),
        RemapFilePathEntry(orig_id=5, remap_id=3, remap_type=1),
    ]
    dump.images["ghost-file-1a.img"] = [GhostFileEntry(uid=1, gid=2, mode=stat.S_IFBLK | 0o600, rdev=0x801)]
    dump.images["ghost-file-3.img"] = [GhostFileEntry(uid=0, gid=0, mode=stat.S_IFREG | 0o644)]
    assert read_dump(dumped(dump)).ghosts == (
        GhostFile(3, stat.S_IFREG | 0o644, 0, 0, 0),
        GhostFile(26, stat.S_IFBLK | 0o600, 1, 2, 0x801),
    )


def test_ghost_file_is_the_one_that_criu_opens(dumped: Dumped) -> None:
    """CRIU takes the top bit for a mark where the entry does not say its type, and for a part of the number else."""
    dump = SyntheticDump.of_processes()
    dump.images["remap-fpath.img"] = [RemapFilePathEntry(orig_id=1, remap_id=1 << 31 | 3, remap_type=1)]
    dump.images["ghost-file-3.img"] = [GhostFileEntry(uid=0, gid=0, mode=stat.S_IFREG | 0o644)]
    dump.images["ghost-file-80000003.img"] = [GhostFileEntry(uid=0, gid=0, mode=stat.S_IFREG | 0o4755)]
    assert read_dump(dumped(dump)).ghosts == (GhostFile(0x80000003, stat.S_IFREG | 0o4755, 0, 0, 0),)


def test_remap_without_a_type_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["remap-fpath.img"] = [RemapFilePathEntry(orig_id=1, remap_id=1 << 31 | 3)]
    with refused("ImageDamaged", "remap-fpath.img"):
        read_dump(dumped(dump))


def test_processes_that_had_ended_and_are_made_again_for_their_files(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    assert read_dump(dumped(dump)).ended == frozenset()
    dump.images["remap-fpath.img"] = [
        RemapFilePathEntry(orig_id=1, remap_id=44, remap_type=2),
        RemapFilePathEntry(orig_id=2, remap_id=2, remap_type=0),
    ]
    found = read_dump(dumped(dump))
    assert (found.ended, found.ghosts) == (frozenset({44}), ())


def test_ghost_file_that_is_not_there_is_named(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["remap-fpath.img"] = [RemapFilePathEntry(orig_id=1, remap_id=26, remap_type=1)]
    with refused("FileMissing", "ghost-file-1a.img"):
        read_dump(dumped(dump))


def test_counts_of_filters_and_locks(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["seccomp.img"] = [SeccompEntry(seccomp_filters=[SeccompFilter(filter=bytes(8))] * 2)]
    dump.images["filelocks.img"] = [FileLockEntry(flag=1, pid=1)]
    found = read_dump(dumped(dump))
    assert (found.seccomp_filters, found.file_locks) == (2, 1)


def test_dump_without_any_filter_has_no_image_of_them(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    del dump.images["seccomp.img"]
    assert read_dump(dumped(dump)).seccomp_filters == 0


def test_dead_root_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.core(1).tc.task_state = 2
    with refused("ImageDamaged", "pstree.img", "dead"):
        read_dump(dumped(dump))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_odd_number_of_semaphore_limits_is_refused(count: int, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["ipcns-var-11.img"][0].sem_ctls[:] = [1] * count  # type: ignore[attr-defined]
    with refused("ImageDamaged", "ipcns-var-11.img"):
        read_dump(dumped(dump))


@pytest.mark.parametrize("name", ["utsns-12.img", "ipcns-var-11.img", "files.img", "inventory.img", "pstree.img"])
def test_missing_image_is_named(name: str, dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    del dump.images[name]
    with refused("FileMissing", f"checkpoint/{name}"):
        read_dump(dumped(dump))


class ReadOnlyMetadata(CheckpointFiles):
    """Refuses to open a pages image."""

    def __init__(self, files: CheckpointFiles) -> None:
        self.path = files.path
        self._files = files
        self.names = files.names  # type: ignore[method-assign]
        self.size = files.size  # type: ignore[method-assign]

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def open(self, name: str) -> Any:
        assert "pages-" not in name
        return self._files.open(name)

    def close(self) -> None: ...

    names = size = None  # type: ignore[assignment]


def test_memory_is_never_read(dumped: Dumped) -> None:
    ReadOnlyMetadata.__abstractmethods__ = frozenset()
    files = ReadOnlyMetadata(dumped(SyntheticDump.of_processes()))  # type: ignore[abstract]
    assert read_dump(files).memory_bytes == 8192


def test_real_checkpoints(sample: Path) -> None:
    with open_checkpoint(sample) as files:
        found = read_dump(files)
    shell, sleep = found.tasks
    assert (shell.comm, sleep.comm, sleep.ppid, shell.machine) == ("sh", "sleep", 1, "x86_64")
    credentials = shell.threads[0].credentials
    assert (credentials.uid, credentials.groups, credentials.effective) == (0, (0,), 0xA80425FB)
    assert (found.hostname, found.pod.network_key, found.sockets_established) == ("counter", "extRootNetNS", False)
    assert found.pod.ipc_sysctls["kernel.msgmax"] == "8192"
    external = {mount.mountpoint for mount in found.mounts if mount.external}
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm"} <= external
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert (token in external) == ("kubelet136" in sample.name)
    assert all(mount.readonly for mount in found.mounts if mount.mountpoint == token)
    executable = found.regular_file(1)
    assert executable is not None
    assert executable.path == "/bin/busybox"
    assert found.memory_bytes in (135168, 139264)
