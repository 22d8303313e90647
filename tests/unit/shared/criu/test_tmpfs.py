from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.criu import tmpfs
from shared.criu.dump import read_dump
from shared.criu.tmpfs import read_tmpfs
from shared.special_files import SpecialFile
from tests.support.checkpoints import Member, SyntheticDump, member, tar_of_members

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]


def image(*members: Member) -> bytes:
    return gzip.compress(tar_of_members([member("./", kind=tarfile.DIRTYPE), *members], tarfile.GNU_FORMAT), mtime=0)


def node(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Member:
    return member(f"./{name}", kind=kind, devmajor=major, devminor=minor, mode=0o666)


def nodes(dump: SyntheticDump, dumped: Dumped) -> tuple[SpecialFile, ...]:
    files = dumped(dump)
    return tuple(each for each in read_tmpfs(files, read_dump(files).mounts) if "device" in each.kind)


def with_image(name: str, content: bytes) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.raw[name] = content
    return dump


def test_device_nodes_with_their_place_in_the_container(dumped: Dumped) -> None:
    content = image(
        node("null", 1, 3),
        member("./shm/", kind=tarfile.DIRTYPE),
        member("./stdin", kind=tarfile.SYMTYPE, linkname="/proc/self/fd/0"),
        node("sda", 8, 0, tarfile.BLKTYPE),
        member("./termination-log", b"text"),
    )
    assert nodes(with_image("tmpfs-dev-65.tar.gz.img", content), dumped) == (
        SpecialFile("/dev/null", "character device", 1, 3, 0o666, 0, 0, capabilities=False),
        SpecialFile("/dev/sda", "block device", 8, 0, 0o666, 0, 0, capabilities=False),
    )


def test_links_with_their_place_in_the_container(dumped: Dumped) -> None:
    content = image(member("./stdin", kind=tarfile.SYMTYPE, linkname="/proc/self/fd/0"), member("./x", b"text"))
    files = dumped(with_image("tmpfs-dev-65.tar.gz.img", content))
    assert [(each.kind, each.path) for each in read_tmpfs(files, read_dump(files).mounts)] == [
        ("symbolic link", "/dev/stdin")
    ]


def test_image_named_by_its_mount(dumped: Dumped) -> None:
    dump = with_image("tmpfs-150.tar.gz.img", image(node("kmsg", 1, 11)))
    assert [found.path for found in nodes(dump, dumped)] == ["/dev/kmsg"]


def test_image_of_no_mount_is_read_all_the_same(dumped: Dumped) -> None:
    dump = with_image("tmpfs-dev-4711.tar.gz.img", image(node("mem", 1, 1)))
    assert [(found.path, found.major, found.minor) for found in nodes(dump, dumped)] == [("?/mem", 1, 1)]


def test_file_names_of_any_kind_are_passed_over(dumped: Dumped) -> None:
    content = image(member("./" + "n" * 200, b"x"), member("./a\nb", b"x"), node("null", 1, 3))
    assert len(nodes(with_image("tmpfs-dev-65.tar.gz.img", content), dumped)) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b", b"plain", image(node("null", 1, 3))[:-9], gzip.compress(b"x" * 600, mtime=0)]
)
def test_damaged_image_is_named(content: bytes, dumped: Dumped) -> None:
    with pytest.raises(Exception, match=r"checkpoint/tmpfs-dev-65\.tar\.gz\.img") as caught:
        nodes(with_image("tmpfs-dev-65.tar.gz.img", content), dumped)
    assert caught.value.reason in ("ArchiveTruncated", "ArchiveDamaged")  # type: ignore[attr-defined]


def test_member_that_leads_outside_is_refused(dumped: Dumped, refused: Refused) -> None:
    with refused("MemberName", "tmpfs-dev-65.tar.gz.img", ".."):
        nodes(with_image("tmpfs-dev-65.tar.gz.img", image(node("../../sda", 8, 0))), dumped)


def test_huge_image_is_refused(dumped: Dumped, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(tmpfs, "TMPFS_BYTES_MAX", 1 << 20)
    with refused("ArchiveTooLarge", "tmpfs-dev-65.tar.gz.img"):
        nodes(with_image("tmpfs-dev-65.tar.gz.img", image(member("./zeros", bytes(2 << 20)))), dumped)


def test_real_checkpoints_have_the_default_devices(sample: Path) -> None:
    with open_checkpoint(sample) as files:
        found = read_tmpfs(files, read_dump(files).mounts)
    assert {(entry.path, entry.major, entry.minor) for entry in found if "device" in entry.kind} == {
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    }
