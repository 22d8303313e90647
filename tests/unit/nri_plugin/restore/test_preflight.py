from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nri_plugin.config import Config, Paths
from nri_plugin.containerd.client import Containerd
from nri_plugin.restore import preflight
from nri_plugin.restore.images import StoredImage, Views
from nri_plugin.restore.kernel import KernelCheck
from nri_plugin.restore.node import Node, OpenedCheckpoint, open_files
from nri_plugin.restore.rootfs import Overlay
from shared.criu import criu_pb2 as pb
from shared.criu.dump import read_dump
from shared.errors import Refused, RestoreError, Unavailable
from shared.metadata import read_checkpoint
from shared.node_facts import NodeFacts
from shared.spec import RuntimeSpec
from tests.support import pods
from tests.support.checkpoints import PAGE, SyntheticDump, containerd, write_directory
from tests.support.elf import NT_BUILD_ID, elf, isa_needed, note
from tests.support.inspected import regular
from tests.support.pods import Security

IMAGE = StoredImage("sha256:" + "3" * 64, "", "sha256:" + "4" * 64, (), {})
LOG = b"(00.0) Version: 4.2.1 (gitid 0)\n(00.0) Running on a Linux 6.8.0-41-generic #1 SMP x86_64\n"
BUILD_ID = bytes(range(20))
FACTS = NodeFacts(
    name="this node",
    os="linux",
    architecture="x86_64",
    kernel="6.8.0-41-generic",
    criu_version="4.2.1",
    criu_missing=False,
    cgroup_version=2,
    cpu="A CPU",
    cpu_flags=frozenset({"sse2", "avx", "avx2"}),
    lsm="none",
    xsave_bytes=2440,
)


class FakeNode(Node):
    """A node with these facts."""

    known = FACTS

    def facts(self) -> NodeFacts:
        return self.known


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    config = Config(paths=Paths(tmp_path / "run", tmp_path / "state", tmp_path / "logs"))
    return FakeNode(config, cast(Containerd, None), cast(Views, None))


def opened(tmp_path: Path, dump: SyntheticDump | None = None) -> OpenedCheckpoint:
    root = write_directory(
        tmp_path / "checkpoint", containerd(dump or SyntheticDump.of_processes()) | {"dump.log": LOG}
    )
    with open_files(IMAGE, root) as found:
        return OpenedCheckpoint(IMAGE, root, read_checkpoint(found), read_dump(found), root, ())


def with_cgroups(fstype: int) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/sys/fs/cgroup", fstype=fstype, ext_key=None)
    return dump


def with_registers(bits: int) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.core(1).thread_info.fpregs.xsave.xstate_bv = bits
    return dump


def with_record(**fields: Any) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.images["cpuinfo.img"] = [pb.CpuinfoEntry(x86_entry=[pb.CpuinfoX86Entry(vendor_id=1, **fields)])]
    return dump


def with_profile(lsm: int) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.inventory().lsmtype = lsm
    dump.core(1).thread_core.creds.lsm_profile = b"cri-containerd.apparmor.d"
    return dump


MACHINES: list[tuple[SyntheticDump | None, dict[str, Any], str, str]] = [
    (None, {"architecture": "aarch64"}, "ArchitectureDiffers", "this node is aarch64"),
    (None, {"criu_version": "4.1.1"}, "CriuTooOld", "made by CRIU 4.2.1, this node has 4.1.1"),
    (with_cgroups(12), {}, "CgroupVersionDiffers", "cgroup v1 mounted, this node has v2"),
    (with_registers(0b1110_0111), {}, "CpuFeaturesMissing", "need avx512f"),
    (with_record(capability=[0] * 9 + [1 << 16]), {}, "CpuFeaturesMissing", "need avx512f"),
    (with_record(xsave_size=832), {}, "CpuStateDiffers", "took 832 bytes, on this node it takes 2440"),
    (with_profile(2), {}, "LsmDiffers", "under apparmor (cri-containerd.apparmor.d)"),
]


@pytest.mark.parametrize(("dump", "changes", "reason", "says"), MACHINES)
def test_node_that_does_not_suit_the_dump_is_refused(
    tmp_path: Path, node: FakeNode, dump: SyntheticDump | None, changes: dict[str, Any], reason: str, says: str
) -> None:
    node.known = replace(FACTS, **changes)
    with pytest.raises(Refused) as refused:
        preflight.check_machine(node, opened(tmp_path, dump))
    assert refused.value.reason == reason
    assert says in refused.value.sentence
    assert not node.suited


@pytest.mark.parametrize(
    ("dump", "changes"),
    [
        (None, {}),
        (None, {"criu_version": "4.3"}),
        (None, {"kernel": "5.15.0", "cpu_flags": None, "cgroup_version": None, "lsm": None}),
        (with_cgroups(23), {}),
        (with_registers(0b111), {}),
        (with_record(xsave_size=2440), {}),
        (with_record(xsave_size=832), {"xsave_bytes": None}),
        (with_profile(2), {"lsm": "apparmor"}),
        (with_profile(0), {}),
    ],
)
def test_node_that_does_is_not(
    tmp_path: Path, node: FakeNode, dump: SyntheticDump | None, changes: dict[str, Any]
) -> None:
    node.known = replace(FACTS, **changes)
    preflight.check_machine(node, opened(tmp_path, dump))


def test_node_is_looked_at_again_only_when_its_criu_changed(tmp_path: Path, node: FakeNode) -> None:
    checkpoint = opened(tmp_path)
    preflight.check_machine(node, checkpoint)
    (checkpoint.root / "checkpoint/core-1.img").unlink()
    preflight.check_machine(node, checkpoint)
    node.known = replace(FACTS)
    with pytest.raises(RestoreError, match=r"core-1\.img"):
        preflight.check_machine(node, checkpoint)


def test_number_of_a_process_beyond_the_nodes_is_refused(tmp_path: Path, node: FakeNode) -> None:
    checkpoint, highest = opened(tmp_path, SyntheticDump.of_processes(5)), tmp_path / "pid_max"
    highest.write_text("4\n")
    with pytest.raises(Refused, match=r"kernel\.pid_max"):
        preflight.check_machine(node, checkpoint, highest)
    highest.write_text("5\n")
    preflight.check_machine(node, checkpoint, highest)


def test_field_that_the_nodes_criu_would_leave_out_is_refused(tmp_path: Path, node: FakeNode) -> None:
    dump = SyntheticDump.of_processes()
    dump.core(1).tc.membarrier_registration_mask = 16
    for entry in dump.images["pagemap-1.img"][1:]:
        assert isinstance(entry, pb.PagemapEntry)
        entry.compat_nr_pages = entry.nr_pages
        entry.ClearField("nr_pages")
    found = opened(tmp_path, dump)
    checkpoint = replace(found, checkpoint=replace(found.checkpoint, criu_version=None))
    node.known = replace(FACTS, criu_version="3.17")
    with pytest.raises(Refused, match=r"which CRIU 3\.17 of this node would leave out silently") as refused:
        preflight.check_machine(node, checkpoint)
    assert refused.value.reason == "CriuTooOld"


def test_kernel_that_lacks_what_criu_requires_is_refused() -> None:
    preflight.check_kernel(KernelCheck(False, (), ("Error (criu/tun.c:85): no tun",)))
    with pytest.raises(Refused, match="no prctl"):
        preflight.check_kernel(KernelCheck(False, ("Error (criu/cr-check.c:1): no prctl",), ()))


# ---- memory ----

NEEDED = 512 * PAGE


def meminfo(tmp_path: Path, available_bytes: int, swap_bytes: int = 0) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: 1 kB\nMemAvailable: {available_bytes >> 10} kB\nSwapFree: {swap_bytes >> 10} kB\n")
    return file


@pytest.mark.parametrize("limit", [None, NEEDED, NEEDED + 1])
def test_container_with_room_for_the_dump(tmp_path: Path, limit: int | None) -> None:
    large = opened(tmp_path, SyntheticDump.of_processes(pages=512))
    preflight.check_memory(large, limit, meminfo(tmp_path, NEEDED))
    preflight.check_memory(large, limit, meminfo(tmp_path, NEEDED // 2, NEEDED // 2))


def test_container_whose_limit_is_lower_than_the_dump_is_refused(tmp_path: Path) -> None:
    large = opened(tmp_path, SyntheticDump.of_processes(pages=512))
    with pytest.raises(Refused, match="limit is 1 MiB") as refused:
        preflight.check_memory(large, 1 << 20, meminfo(tmp_path, 1 << 30))
    assert refused.value.reason == "MemoryLimitTooLow"


def test_node_with_less_memory_left_than_the_dump_is_refused_for_now(tmp_path: Path) -> None:
    large = opened(tmp_path, SyntheticDump.of_processes(2, pages=512))
    preflight.check_memory(large, None, meminfo(tmp_path, NEEDED))  # two forks may share it all
    with pytest.raises(Unavailable, match="hold 2 MiB of memory, this node has 1 MiB left") as refused:
        preflight.check_memory(large, None, meminfo(tmp_path, 1 << 20))
    assert refused.value.reason == "NodeMemoryLow"


@pytest.mark.parametrize(
    ("memory", "with_swap", "swap_devices", "limit"),
    [
        (None, None, 1, None),
        (0, 0, 1, None),
        (-1, -1, 1, None),
        (1 << 63, None, 0, None),
        (5, None, 0, 5),
        (5, -1, 0, 5),
        (5, 9, 0, 5),
        (5, 5, 1, 5),
        (5, 9, 1, 9),
        (5, -1, 1, None),
        (5, None, 1, None),
    ],
)
def test_limit_counts_swap_where_the_node_has_some(
    tmp_path: Path, memory: int | None, with_swap: int | None, swap_devices: int, limit: int | None
) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n" + "/dev/vdb partition 1 0 -2\n" * swap_devices)
    assert preflight.limit_bytes(memory, with_swap, swaps) == limit


def test_kernel_without_swap_has_none(tmp_path: Path) -> None:
    assert preflight.limit_bytes(5, 9, tmp_path / "swaps") == 5


# ---- disk ----


def test_diff_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path, node: FakeNode) -> None:
    checkpoint = opened(tmp_path)
    with (checkpoint.root / "rootfs-diff.tar").open("r+b") as file:
        file.truncate(1 << 43)  # sparse
    preflight.check_disk(node, checkpoint, fills_root=False)
    with pytest.raises(Unavailable, match="what the container had changed") as refused:
        preflight.check_disk(node, checkpoint, fills_root=True)
    assert refused.value.reason == "NodeDiskLow"


# ---- the root file system ----

PROGRAM = elf([note(NT_BUILD_ID, BUILD_ID)], size=5000)


def using(*libraries: str) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.images["files.img"][0] = regular(1, "/bin/app", mode=0o100755, size=5000, build_id=BUILD_ID)
    for number, path in enumerate(libraries, 50):
        entry = regular(number, path, mode=0o100755, size=5000, build_id=BUILD_ID)
        dump.add_file(entry, descriptor=number)
    return dump


def root_of(tmp_path: Path, **files: bytes) -> Overlay:
    """The lower directory alone; ``__`` for a slash in a name."""
    for name, content in files.items():
        file = tmp_path / "lower" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755)
    return Overlay((str(tmp_path / "lower"),), "", "", ())


def test_root_with_the_same_program(tmp_path: Path, node: FakeNode) -> None:
    root = root_of(tmp_path, bin__app=PROGRAM)
    checkpoint = opened(tmp_path, using())
    preflight.check_root(node, checkpoint, root)
    (tmp_path / "lower/bin/app").unlink()
    preflight.check_root(node, checkpoint, root)  # known by its directories
    with pytest.raises(Refused):
        preflight.check_root(node, checkpoint, replace(root, lower=(*root.lower, str(tmp_path / "lower"))))


OTHER = elf([note(NT_BUILD_ID, bytes(20))], size=5000)


@pytest.mark.parametrize(
    ("files", "reason", "says"),
    [
        ({"bin__app": OTHER}, "BuildIdDiffers", "/bin/app had the build ID 0001"),
        ({"bin__app": PROGRAM + b"x"}, "FileSizeDiffers", "/bin/app had 5000 bytes"),
        ({"bin__other": PROGRAM}, "RootFileMissing", "/bin/app is open or mapped"),
        ({"bin__app__x": PROGRAM}, "FileModeDiffers", "/bin/app was a file"),
    ],
)
def test_root_with_another_program_is_refused(
    tmp_path: Path, node: FakeNode, files: dict[str, bytes], reason: str, says: str
) -> None:
    with pytest.raises(Refused, match=says) as refused:
        preflight.check_root(node, opened(tmp_path, using()), root_of(tmp_path, **files))
    assert refused.value.reason == reason


def test_runtime_linker_and_libc_are_named_first(tmp_path: Path, node: FakeNode) -> None:
    dump = using("/lib/libz.so.1", "/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2")
    files = {"bin__app": OTHER, "lib__libz.so.1": OTHER, "lib__libc.so.6": OTHER}
    root = root_of(tmp_path, **files, **{"lib64__ld-linux-x86-64.so.2": PROGRAM})
    with pytest.raises(Refused, match=r"^/lib/libc\.so\.6 had the build ID"):
        preflight.check_root(node, opened(tmp_path, dump), root)


def test_level_of_a_program_needs_its_processor(tmp_path: Path, node: FakeNode) -> None:
    program = elf([isa_needed(4)], size=5000)
    dump = SyntheticDump.of_processes()
    dump.images["files.img"][0] = regular(1, "/bin/app", mode=0o100755, size=5000)
    with pytest.raises(Refused, match="bmi2") as refused:
        preflight.check_root(node, opened(tmp_path, dump), root_of(tmp_path, bin__app=program))
    assert refused.value.reason == "CpuFeaturesMissing"


# ---- volumes and the node's network ----


def test_ordinary_dump_makes_nothing_on_volumes() -> None:
    preflight.check_volumes(pods.dump(Security()), pods.spec(Security()))


USER = Security(uid=1000, gid=1000, drop=("ALL",), no_new_privileges=True)


def with_volume(tmp_path: Path) -> RuntimeSpec:
    """A pod of a user whose volume at /data is a directory of root's that is there."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    live = pods.spec(USER)
    mounts = tuple(replace(each, source=str(folder)) if each.destination == "/data" else each for each in live.mounts)
    return replace(live, mounts=mounts)


def test_socket_where_the_pods_user_could_not_make_it_is_refused(tmp_path: Path) -> None:
    usk = pb.UnixSkEntry(id=77, ino=9, type=1, state=10, name=b"/data/app.sock\0")
    made, live = pods.synthetic_dump(USER), with_volume(tmp_path)
    made.add_file(pb.FileEntry(type=5, id=77, usk=usk), descriptor=9)
    dump = pods.read(made)
    with pytest.raises(Refused, match=r"/data/app\.sock") as refused:
        preflight.check_volumes(dump, live)
    assert refused.value.reason == "SocketExceeds"
    os.chown(tmp_path / "data", 1000, 1000)
    preflight.check_volumes(dump, live)


def test_deleted_file_where_the_pods_user_could_not_make_it_is_refused(tmp_path: Path) -> None:
    made = pods.synthetic_dump(USER)
    volume = made.mount("/data").mnt_id
    made.images["remap-fpath.img"] = [pb.RemapFilePathEntry(orig_id=77, remap_id=1, remap_type=1)]
    made.images["ghost-file-1.img"] = [pb.GhostFileEntry(uid=1000, gid=1000, mode=0o100600)]
    made.add_file(
        pb.FileEntry(type=1, id=77, reg=pb.RegFileEntry(id=77, name=b"/data/gone", mnt_id=volume, mode=0o100600)),
        descriptor=9,
    )
    with pytest.raises(Refused, match="/data/gone") as refused:
        preflight.check_volumes(pods.read(made), with_volume(tmp_path))
    assert refused.value.reason == "FileExceeds"
