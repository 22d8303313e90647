from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kubectl_restore.inspect import gather as gathering
from kubectl_restore.inspect.facts import BaseImage, FileLock, MemoryKind, Namespace, OpenFile, SharedSegment, Socket
from shared.archive import open_checkpoint
from shared.compression import Compression
from shared.criu import criu_pb2 as pb
from shared.errors import CheckpointInvalid
from tests.support.checkpoints import (
    PAGE,
    SyntheticDump,
    config_dump,
    containerd,
    crio,
    member,
    podman,
    runtime_spec,
    tar_of_members,
)
from tests.support.inspected import SEGMENT, rich_dump, set_memory
from tests.unit.kubectl_restore.inspect.conftest import Gather


def test_who_took_it_and_of_what(inspected: Gather) -> None:
    found = inspected(containerd())
    assert (found.engine.name, found.engine.runtime, found.engine.criu_version) == (
        "containerd",
        "io.containerd.runc.v2",
        "4.2.1",
    )
    assert (found.container.namespace, found.container.pod, found.container.name) == ("shop", "app-pod", "app")
    assert found.container.image == BaseImage(
        "registry.example/app:1", "registry.example/app@sha256:" + "b" * 64, "sha256:" + "b" * 64
    )
    assert found.container.checkpointed_at is not None
    assert found.container.checkpointed_at.isoformat() == "2026-11-24T03:24:13.861955+00:00"


@pytest.mark.parametrize(("make", "engine"), [(containerd, "containerd"), (crio, "CRI-O"), (podman, "Podman")])
def test_every_engine(inspected: Gather, make: Callable[[SyntheticDump], dict[str, bytes]], engine: str) -> None:
    found = inspected(make(rich_dump()))
    assert found.engine.name == engine
    assert [process.command for process in found.processes] == [("/bin/app", "--serve"), ("/bin/worker", "one")]


@pytest.mark.parametrize("compression", list(Compression))
def test_every_compression(inspected: Gather, compression: Compression) -> None:
    found = inspected(rich_dump(), compression)
    assert found.archive.compression == compression.value
    assert found.processes[0].command == ("/bin/app", "--serve")


def test_command_lines_come_from_memory_and_may_be_any_bytes(inspected: Gather) -> None:
    found = inspected(rich_dump([b"a\0\0b c\0\xff\x1b\0", b"", b"\0\0\0"]))
    assert [process.command for process in found.processes] == [("a", "", "b c", "\\xff\x1b"), (), ()]
    assert [process.command_known for process in found.processes] == [True, False, False]


def test_command_line_that_was_not_dumped_is_unknown(inspected: Gather) -> None:
    dump = rich_dump()
    dump.images["mm-1.img"][0].mm_arg_start = 0x999000  # type: ignore[attr-defined]
    dump.images["mm-1.img"][0].mm_arg_end = 0x999010  # type: ignore[attr-defined]
    process = inspected(dump).processes[0]
    assert (process.command, process.command_known, process.name) == ((), False, "app")


def test_command_lines_are_cut(inspected: Gather, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "COMMAND_BYTES_MAX", 8)
    assert inspected(rich_dump()).processes[0].command == ("/bin/app",)


def test_all_command_lines_together_are_bounded(inspected: Gather, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "COMMANDS_BYTES_MAX", 20)
    found = inspected(rich_dump([b"/bin/app\0--serve\0", b"/bin/worker\0"]))
    assert [process.command for process in found.processes] == [("/bin/app", "--serve"), ("/bi",)]


def test_table_that_many_processes_share_is_not_listed_without_end(
    inspected: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = rich_dump([b"one\0"] * 3)
    held = len(inspected(dump).processes[0].files)
    monkeypatch.setattr(gathering, "OPEN_FILES_MAX", 2 * held)
    inspected(dump)
    for pid in (2, 3):
        dump.ids(pid).files_id = 1
    with pytest.raises(
        CheckpointInvalid, match=f"have {3 * held} files open together; {2 * held} can be shown"
    ) as found:
        inspected(dump)
    assert found.value.reason == "DumpTooLarge"


def test_large_compressed_archive_is_not_decompressed_for_ever(
    inspected: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "KEPT_FILE_BYTES", 100)
    monkeypatch.setattr(gathering, "DECOMPRESSED_BYTES_MAX", 100_000)
    found = inspected(rich_dump([b"one\0", b"two\0"]), Compression.GZIP)
    assert [process.command for process in found.processes] == [("one",), ()]


def test_arguments_that_end_before_they_begin_are_none(inspected: Gather) -> None:
    dump = rich_dump()
    dump.images["mm-1.img"][0].mm_arg_end = 0  # type: ignore[attr-defined]
    assert inspected(dump).processes[0].command == ()


def test_memory_by_process_and_kind(inspected: Gather) -> None:
    found = inspected(rich_dump())
    memory = found.processes[0].memory
    assert memory is not None
    assert memory.kinds == (
        MemoryKind("heap", 4 * PAGE, 3 * PAGE),
        MemoryKind("stack", 32 * PAGE, PAGE),
        MemoryKind("file", 8 * PAGE, 0),
        MemoryKind("shared", 64 * PAGE, 0),
    )
    assert (memory.mapped_bytes, memory.dumped_bytes) == (108 * PAGE, 4 * PAGE)
    assert (found.memory.mapped_bytes, found.memory.dumped_bytes) == (216 * PAGE, 8 * PAGE)
    assert found.shared_segments == (SharedSegment(SEGMENT, 5 * PAGE, (1, 2)),)
    assert found.processes[0].areas[0].path == "/bin/app"


def test_open_files_by_what_they_are(inspected: Gather) -> None:
    found = inspected(rich_dump())
    assert found.processes[0].files == (
        OpenFile(0, "device", "/dev/null"),
        OpenFile(1, "pipe", "pipe:[31]"),
        OpenFile(2, "pipe", "pipe:[41]"),
        OpenFile(3, "tcp", "0.0.0.0:8080 listening"),
        OpenFile(4, "tcp", "10.0.0.5:8080 to 10.0.9.77:41222 established"),
        OpenFile(5, "unix", "/run/app.sock listening"),
        OpenFile(6, "unix", "@abstract connected"),
        OpenFile(7, "unix", "socket:[62] connected"),
        OpenFile(8, "eventfd", "eventfd"),
        OpenFile(9, "file", "/data/journal"),
        OpenFile(10, "memfd", "memfd:scratch"),
    )


def test_sockets_say_whom_they_reach_and_who_holds_them(inspected: Gather) -> None:
    dump = rich_dump()
    dump.ids(2).files_id = 1
    found = inspected(dump)
    assert found.sockets == (
        Socket("tcp", "listening", "0.0.0.0:8080", None, (1, 2)),
        Socket("unix", "listening", "/run/app.sock", None, (1, 2)),
        Socket("tcp", "established", "10.0.0.5:8080", "10.0.9.77:41222", (1, 2)),
        Socket("unix", "connected", "@abstract", "socket:[62]", (1, 2)),
        Socket("unix", "connected", "socket:[62]", "@abstract", (1, 2)),
    )


def test_socket_whose_other_end_is_elsewhere(inspected: Gather) -> None:
    dump = rich_dump()
    dump.images["files.img"] = [
        entry
        for entry in dump.images["files.img"]
        if entry.id != 62  # type: ignore[attr-defined]
    ]
    sockets = [socket for socket in inspected(dump).sockets if socket.local == "@abstract"]
    assert [socket.remote for socket in sockets] == ["socket:[62] outside"]


def test_terminals_and_fifos_have_paths(inspected: Gather) -> None:
    dump = rich_dump()
    dump.images["files.img"] += [
        pb.FileEntry(type=1, id=80, reg=pb.RegFileEntry(id=80, name=b"/dev/pts/0", flags=0, mode=0o020620, mnt_id=151)),
        pb.FileEntry(type=1, id=81, reg=pb.RegFileEntry(id=81, name=b"/run/fifo", flags=0, mode=0o010644, mnt_id=147)),
    ]
    dump.add_file(pb.FileEntry(type=11, id=82, tty=pb.TtyFileEntry(id=82, tty_info_id=1, regf_id=80)), descriptor=20)
    dump.add_file(pb.FileEntry(type=3, id=83, fifo=pb.FifoEntry(id=83, pipe_id=1, regf_id=81)), descriptor=21)
    files = {file.descriptor: file for file in inspected(dump).processes[0].files}
    assert files[20] == OpenFile(20, "tty", "/dev/pts/0")
    assert files[21] == OpenFile(21, "fifo", "/run/fifo")


def test_locks_name_the_file(inspected: Gather) -> None:
    assert inspected(rich_dump()).file_locks == (FileLock("flock", 1, "/data/journal"),)


def test_rights_of_a_process(inspected: Gather) -> None:
    dump = SyntheticDump.of_processes()
    creds = dump.core(1).thread_core.creds
    creds.euid, creds.no_new_privs = 1000, 1
    creds.cap_eff[:] = [1 << 10, 0]
    dump.core(1).thread_core.seccomp_mode = 2
    dump.images["seccomp.img"] = [pb.SeccompEntry(seccomp_filters=[pb.SeccompFilter(filter=bytes(8), flags=0)])]
    dump.core(1).thread_core.seccomp_filter = 0
    held = inspected(dump).processes[0].credentials
    assert held is not None
    assert (held.uid, held.effective, held.seccomp, held.no_new_privileges) == (
        1000,
        ("CAP_NET_BIND_SERVICE",),
        "filter",
        True,
    )
    assert "CAP_CHOWN" in held.bounding


def test_dead_process_has_a_name_and_nothing_else(inspected: Gather) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.core(2).tc.task_state = 6
    for name in ("mm-2.img", "pagemap-2.img", "fs-2.img"):
        del dump.images[name]
    process = inspected(dump).processes[1]
    assert (process.state, process.memory, process.credentials, process.files) == ("zombie", None, None, ())


def test_mounts_say_what_of_the_pod_they_were(inspected: Gather) -> None:
    source = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache"
    spec = runtime_spec(mounts=[{"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "rw"]}])
    found = inspected(containerd(rich_dump(), spec=spec))
    mounts = {mount.path: mount for mount in found.mounts}
    assert (mounts["/data"].type, mounts["/data"].volume, mounts["/data"].external) == ("bind", "emptyDir cache", True)
    assert (mounts["/sys"].type, mounts["/sys"].readonly, mounts["/sys"].external) == ("sysfs", True, False)


def test_cgroups_of_the_runtime_are_not_the_pods(inspected: Gather) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/sys/fs/cgroup/cpu", fstype=12)
    found = inspected(dump)
    assert found.engine.cgroup_version == 1
    assert [mount.external for mount in found.mounts if mount.path == "/sys/fs/cgroup/cpu"] == [False]


@pytest.mark.parametrize(("key", "masked"), [(b"/dev/null", []), (b"/proc/keys", ["/proc/keys"])])
def test_masked_path_is_no_mount_of_the_pod(inspected: Gather, key: bytes, masked: list[str]) -> None:
    """runc hands all in as /dev/null, crun each under its own path."""
    dump = SyntheticDump.of_processes()
    dump.add_mount("/proc/keys", fstype=5, ext_key=key)
    found = inspected(containerd(dump, spec=runtime_spec(linux={"maskedPaths": masked, "namespaces": []})))
    mount = next(mount for mount in found.mounts if mount.path == "/proc/keys")
    assert (mount.type, mount.external) == ("masked", False)


def test_moment_that_no_document_has_is_that_of_the_images(tmp_path: Path) -> None:
    """As in Podman's archives, whose config.dump has none."""
    config = config_dump()
    del config["checkpointedTime"]
    archive = tmp_path / "checkpoint.tar"
    members = [member(name, content, mtime=1_700_000_000) for name, content in containerd(config=config).items()]
    archive.write_bytes(tar_of_members(members))
    with open_checkpoint(archive) as files:
        found = gathering.gather(files, "checkpoint.tar")
    assert found.container.checkpointed_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_namespaces_are_its_own_the_pods_or_the_nodes(inspected: Gather) -> None:
    found = inspected(containerd())
    assert found.namespaces[:3] == (
        Namespace("pid", "container"),
        Namespace("network", "pod"),
        Namespace("ipc", "node"),
    )


def test_changes_of_the_root(inspected: Gather) -> None:
    changed = inspected(crio()).root_changes
    assert (changed.diff_bytes, changed.deleted_paths) == (len(crio()["rootfs-diff.tar"]), 1)
    files = {name: content for name, content in containerd().items() if name != "rootfs-diff.tar"}
    assert inspected(files).root_changes.diff_bytes is None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.dump", b"{", "MetadataMalformed"),
        ("checkpoint/inventory.img", b"x", "WrongMagic"),
        ("checkpoint/pages-1.img", bytes(100), "ImageDamaged"),
        ("checkpoint/mm-1.img", b"", "WrongMagic"),
        ("checkpoint/files.img", bytes(64), "WrongMagic"),
        ("checkpoint/filelocks.img", bytes(64), "WrongMagic"),
    ],
)
def test_damaged_checkpoint_is_refused_in_one_sentence(
    inspected: Gather, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(CheckpointInvalid) as refusal:
        inspected(containerd(rich_dump()) | {name: content})
    assert refusal.value.reason == reason
    assert "\n" not in refusal.value.sentence


def test_shared_memory_of_another_process_id_does_not_confuse(inspected: Gather) -> None:
    dump = rich_dump()
    set_memory(dump, 2, b"other\0")
    del dump.images[f"pagemap-shmem-{SEGMENT}.img"]
    assert inspected(dump).shared_segments == (SharedSegment(SEGMENT, 0, (1, 2)),)


def test_environment_is_never_shown(inspected: Gather) -> None:
    files = containerd(rich_dump([b"app\0PASSWORD=secret\0"]))
    spec = json.loads(files["spec.dump"])
    spec["process"]["env"] = ["PASSWORD=other-secret"]
    found = inspected(files | {"spec.dump": json.dumps(spec).encode()})
    assert "other-secret" not in repr(found)
