"""Which open files the kernel is asked about, and as whom."""

from __future__ import annotations

import pytest

from shared.criu import criu_pb2 as pb
from shared.judge.file_rights import Judged, to_judge
from tests.support.pods import Security, read, spec, synthetic_dump

NOBODY = Security(uid=1000, gid=1000, no_new_privileges=True, drop=("ALL",))


def judged(security: Security, path: str = "/data/x") -> Judged:
    dump = synthetic_dump(security)
    reg = pb.RegFileEntry(id=77, name=path.encode(), mnt_id=dump.mount_of(path).mnt_id, mode=0o100600)
    dump.add_file(pb.FileEntry(type=1, id=77, reg=reg), descriptor=9)
    return to_judge(read(dump), spec(security))


def test_file_of_a_volume_is_judged_as_the_user_of_the_pod() -> None:
    found = judged(NOBODY)
    assert "/data/x" in found.paths
    assert {(user.uid, user.gid) for user in found.users} == {(1000, 1000)}
    assert found.capabilities == 0


def test_file_of_the_root_is_not() -> None:
    assert "/etc/x" not in judged(NOBODY, "/etc/x").paths


@pytest.mark.parametrize(
    "security",
    [
        Security(),
        Security(uid=1000, gid=1000),
        Security(no_new_privileges=True),
    ],
    ids=["root", "user with setuid programs", "root without"],
)
def test_nothing_is_judged_where_root_s_rights_were_within_reach(security: Security) -> None:
    assert judged(security) == Judged()


@pytest.mark.parametrize("path", ["/proc/slabinfo", "/proc/1/mem", "/sys/kernel/notes", "/dev/mqueue/of-another"])
def test_file_of_the_kernel_is_judged_too(path: str) -> None:
    assert path in judged(NOBODY, path).paths


def test_file_of_a_process_that_has_ended_is_not() -> None:
    dump = synthetic_dump(NOBODY)
    reg = pb.RegFileEntry(id=77, name=b"/proc/40/stat", mnt_id=dump.mount_of("/proc/40/stat").mnt_id, mode=0o100444)
    dump.add_file(pb.FileEntry(type=1, id=77, reg=reg), descriptor=9)
    dump.images["remap-fpath.img"] = [pb.RemapFilePathEntry(orig_id=77, remap_id=40, remap_type=2)]
    assert "/proc/40/stat" not in to_judge(read(dump), spec(NOBODY)).paths
