"""A header block is read in one way or refused, whatever each reader of tar would make of it."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from shared.tar import DIFF, IMAGE, TMPFS
from tests.support.checkpoints import member
from tests.support.tars import END, archive, block, header_changed, part, walked

Refused = Callable[..., Any]
GNU = tarfile.GNU_FORMAT


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (header_changed(block("a"), 257, bytes(8)), "neither of the POSIX nor of the GNU format"),
        (header_changed(block("a"), 257, b"ustar\x0001"), "neither of the POSIX nor of the GNU format"),
        (header_changed(block("a"), 257, b"ustar 00"), "neither of the POSIX nor of the GNU format"),
        (header_changed(block("a"), 508, b"tar\0"), "as the format of star has"),
        (header_changed(block("a"), 476, b"12345670123 12345670123 "), "the prefix in its header goes on"),
        (header_changed(block("a", form=GNU), 345, b"00000000001\0"), "where the POSIX format has a prefix"),
        (header_changed(block("a", form=GNU), 345, b"usr"), "where the POSIX format has a prefix"),
        (header_changed(block("a", form=GNU), 500, b"x"), "where the POSIX format has a prefix"),
        (header_changed(block("a"), 50, b"b"), "the name in its header goes on after a zero byte"),
        (header_changed(block("a"), 350, b"b"), "the prefix in its header goes on after a zero byte"),
        (header_changed(block("a", kind=b"2", linkname="b"), 200, b"c"), "the link target in its header goes on"),
        (header_changed(block("a"), 280, b"b"), "the owner's name in its header goes on"),
        (header_changed(block("a"), 300, b"b"), "the group's name in its header goes on"),
        (block("a/", kind=b"\0"), "directory by its name alone"),
        (block("a/"), "named like a directory"),
        (header_changed(block("a"), 156, b"S"), "sparse file of the GNU format with a header of another"),
        (block("a", linkname="b"), "names a link target and is no link"),
        (block("a", kind=b"2"), "link to nothing"),
        (header_changed(block("a"), 100, b"0020666\0"), "something else by its mode 20666"),
        (header_changed(block("a/", kind=b"5"), 100, b"0100755\0"), "something else by its mode 100755"),
        (header_changed(block("a"), 100, b"7777777\0"), "mode 2097151, which some programs cut"),
        (header_changed(block("a/", kind=b"5"), 124, b"00000001000\0"), "directory and has content"),
        (header_changed(block("a", kind=b"6"), 124, b"00000001000\0"), "FIFO and has content"),
        (header_changed(block("a", kind=b"1", linkname="b"), 124, b"00000001000\0"), "hard link and has content"),
        (header_changed(block("a"), 108, b"\x80\0\0\1\0\0\0\0"), "uid 4294967296, which some programs cut"),
        (header_changed(block("a"), 116, b"\x80\0\0\0\xff\xff\xff\xff"), "gid 4294967295, which some programs cut"),
        (header_changed(block("a", kind=b"3"), 329, b"\x80\0\0\1\0\0\0\1"), "major number 4294967297"),
        (header_changed(block("a", kind=b"3"), 329, b"0010000\0"), "major number 4096"),
        (header_changed(block("a", kind=b"4"), 337, b"4000000\0"), "minor number 1048576"),
    ],
)
def test_header_that_readers_take_differently_is_refused(header: bytes, words: str, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "the archive, member", "at byte 0", words):
        walked(header + END, TMPFS)


@pytest.mark.parametrize("offset", [100, 108, 116, 124, 136, 148], ids=["mode", "uid", "gid", "size", "time", "sum"])
@pytest.mark.parametrize(
    "value",
    [b"\0" * 8, b" " * 8, b"\xfe" * 8, b"\x81" + b"\0" * 7, b"-000001\0", b"000 001\0", b"00\x0001\0\0",
     b"0x1\0\0\0\0\0", b"\0" + b"000001\0"],
)  # fmt: skip
def test_number_in_no_form_that_all_readers_take_is_refused(offset: int, value: bytes, refused: Refused) -> None:
    width = 12 if offset in (124, 136) else 8
    header = block("a")
    header = (
        header_changed(header, offset, value + value[-1:] * (width - 8))
        if offset != 148
        else (header[:148] + value + header[156:])
    )
    with refused("ArchiveDamaged", "no valid"):
        walked(header + END, DIFF)


@pytest.mark.parametrize("value", [b"0000644\0", b"000644 \0", b"   644 \0", b"00000644", b"644" + b"\0" * 5])
def test_number_in_the_forms_of_real_programs_is_taken(value: bytes) -> None:
    assert walked(header_changed(block("a"), 100, value) + END)[0].mode == 0o644


def test_checksum_in_base_256_is_refused(refused: Refused) -> None:
    header = block("a")
    total = sum(header[:148] + b" " * 8 + header[156:])
    with refused("ArchiveDamaged", "no valid checksum"):
        walked(header[:148] + b"\x80" + total.to_bytes(7) + header[156:] + END)


def test_device_node_needs_its_numbers(refused: Refused) -> None:
    with refused("ArchiveDamaged", "no valid major number"):
        walked(header_changed(block("a", kind=b"3"), 329, bytes(8)) + END, DIFF)


def test_time_before_1970_is_taken() -> None:
    old = header_changed(block("a", form=GNU), 136, b"\xff" * 11 + b"\xfb")
    assert walked(old + END)[0].modified == -5


@pytest.mark.parametrize("mode", [b"0100644\0", b"0000644\0"])
def test_mode_may_repeat_the_kind(mode: bytes) -> None:
    assert walked(header_changed(block("a"), 100, mode) + END, DIFF)[0].mode == 0o644


@pytest.mark.parametrize("kind", [b"7", b"V", b"M", b"D", b"N", b"X", b"A", b"Z"])
def test_kind_that_only_some_programs_know_is_refused(kind: bytes, refused: Refused) -> None:
    for rules in (DIFF, TMPFS, IMAGE):
        with refused("MemberKind", "unknown kind"):
            walked(block("a", kind=kind, form=GNU) + END, rules)


@pytest.mark.parametrize("field", ["uname", "gname"])
def test_owner_of_a_tmpfs_file_by_name_is_refused(field: str, refused: Refused) -> None:
    owned = archive(member("su", b"x", mode=0o4755, uid=1000, **{field: "root"}), form=GNU)
    with refused("ArchiveAmbiguous", '"su"', "owner has a name"):
        walked(owned, TMPFS)
    assert walked(owned, DIFF)[0].uid == 1000


def test_refusal_names_the_member_and_where_it_is(refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "the archive, member", '"b"', "at byte 1024", "take a new checkpoint"):
        walked(part(member("a", b"x")) + block("b", linkname="c") + END)
