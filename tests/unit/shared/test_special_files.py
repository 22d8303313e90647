"""Hard links in archives that root unpacks: what they link to, and what they make of it."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from shared.special_files import special_files
from tests.support.checkpoints import Member, member
from tests.support.tars import Bytes, archive

Refused = Callable[..., Any]


def found(*members: Member, links: bool) -> list[tuple[str, str, int]]:
    stream = Bytes(archive(*members))
    each = special_files(stream, "the archive", "", limit_bytes=1 << 20, too_large="TooLarge", links=links)
    return [(file.path, file.kind, file.mode) for file in each]


def hard(name: str, target: str, **fields: Any) -> Member:
    return member(name, kind=tarfile.LNKTYPE, linkname=target, **fields)


def test_hard_link_that_makes_its_target_setuid_is_a_program_that_raises_rights() -> None:
    assert found(hard("su", "bin/busybox", mode=0o4755), links=False) == [("/su", "file", 0o4755)]


def test_hard_link_that_gives_its_target_capabilities_is_one_too() -> None:
    link = hard("su", "bin/busybox", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": "\1"})
    assert found(link, links=False) == [("/su", "file", 0o755)]


def test_hard_link_to_a_file_of_the_base_image_is_nothing_special() -> None:
    assert found(hard("sh", "bin/busybox", mode=0o755), links=False) == []


@pytest.mark.parametrize("target", ["/etc/shadow", "../etc/shadow", "a/../../b"])
def test_hard_link_out_of_a_rootfs_diff_is_refused(target: str, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", '"a" is a hard link', "leads outside"):
        found(hard("a", target), links=False)


@pytest.mark.parametrize("target", ["/etc/shadow", "../etc/shadow", "other", "soft"])
def test_hard_link_in_a_tmpfs_to_anything_but_an_earlier_file_is_refused(target: str, refused: Refused) -> None:
    soft = member("soft", kind=tarfile.SYMTYPE, linkname="/etc/shadow")
    with refused("TmpfsLink", '"a" is a hard link'):
        found(soft, hard("a", target), member("other", b"x"), links=True)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_hard_link_in_a_tmpfs_to_a_device_is_refused(kind: bytes, refused: Refused) -> None:
    disk = member("disk", kind=kind, devmajor=8, devminor=0)
    with refused("TmpfsLink", '"null" is a hard link to "disk"'):
        found(disk, hard("null", "disk"), links=True)
