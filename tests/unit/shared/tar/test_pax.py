"""Extended headers: one of POSIX or one pair of GNU before a member, known records once each."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from shared.tar import CHECKPOINT, DIFF, IMAGE, TMPFS, Rules
from tests.support.checkpoints import member
from tests.support.tars import END, archive, block, extended, part, record, records, walked

Refused = Callable[..., Any]
GNU = tarfile.GNU_FORMAT
MEMBER = archive(member("a", b"x"))
LONG_NAME = extended(b"L", b"long\0", form=GNU)
LONG_TARGET = extended(b"K", b"target\0", form=GNU)
EXTENDED = extended(b"x", records(path="b"))


@pytest.mark.parametrize("content", [b"", b"13 comment=x\n", records(path="b"), records(uid="0"), b"nonsense"])
@pytest.mark.parametrize("rules", [CHECKPOINT, TMPFS, DIFF, IMAGE])
def test_global_header_is_refused_whatever_it_says(content: bytes, rules: Rules, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "global extended header"):
        walked(extended(b"g", content) + MEMBER, rules)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (EXTENDED + EXTENDED, "two extended headers"),
        (EXTENDED + LONG_NAME, "two extended headers"),
        (EXTENDED + LONG_TARGET, "two extended headers"),
        (LONG_NAME + EXTENDED, "two extended headers"),
        (LONG_TARGET + EXTENDED, "two extended headers"),
        (extended(b"x", b"") + EXTENDED, "two extended headers"),
        (LONG_NAME + LONG_NAME, "two long names"),
        (LONG_TARGET + LONG_TARGET, "two long link targets"),
        (LONG_NAME + LONG_TARGET + LONG_NAME, "two long names"),
        (EXTENDED + extended(b"g", b"") + EXTENDED, "global extended header"),
    ],
)
def test_more_than_one_extended_header_for_a_member_is_refused(headers: bytes, words: str, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", words):
        walked(headers + MEMBER, DIFF)


@pytest.mark.parametrize("headers", [LONG_NAME + LONG_TARGET, LONG_TARGET + LONG_NAME])
def test_long_name_and_long_target_belong_together(headers: bytes) -> None:
    (found,) = walked(headers + block("a", kind=b"2", linkname="b", form=GNU) + END, TMPFS)
    assert (found.name, found.target) == ("long", "target")


def test_extended_header_is_of_the_next_member_alone() -> None:
    headers = extended(b"x", records(path="b", uid="7", gid="8", mtime="9.5"))
    first, second = walked(headers + part(member("a", b"x")) + archive(member("c", b"y")), DIFF)
    assert (first.name, first.uid, first.gid, first.modified) == ("b", 7, 8, 9)
    assert (second.name, second.uid, second.gid, second.modified) == ("c", 0, 0, 0)


@pytest.mark.parametrize("name", [b"", b"\0", b"a\0b", b"a\0\0"])
@pytest.mark.parametrize("flag", [b"L", b"K"])
def test_long_name_with_more_than_one_zero_byte_is_refused(flag: bytes, name: bytes, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "long name is empty or goes on"):
        walked(extended(flag, name, form=GNU) + MEMBER, TMPFS)


@pytest.mark.parametrize("header", [extended(b"x", records(mtime="1")), extended(b"L", b"long", form=GNU)])
def test_extended_header_that_goes_on_in_its_padding_is_refused(header: bytes, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "goes on after its end"):
        walked(header[:-20] + records(path="b").ljust(20, b"\0") + MEMBER, DIFF)


def test_link_target_for_what_is_no_link_is_refused(refused: Refused) -> None:
    for header in (LONG_TARGET, extended(b"x", records(linkpath="b"))):
        with refused("ArchiveAmbiguous", "link target and is no link"):
            walked(header + MEMBER, DIFF)


@pytest.mark.parametrize(
    "key",
    [
        "GNU.sparse.map", "GNU.volume.label", "GNU.dumpdir", "hdrcharset", "charset", "SCHILY.filetype",
        "SCHILY.realsize", "SCHILY.devmajor", "SCHILY.acl.access", "RHT.security.selinux", "LIBARCHIVE.xattr.user.x",
        "realtime.any", "security.selinux", "Path", "mode", "type",
    ],
)  # fmt: skip
@pytest.mark.parametrize("rules", [CHECKPOINT, TMPFS, DIFF])
def test_record_that_only_some_programs_understand_is_refused(key: str, rules: Rules, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", f'"{key}"'):
        walked(extended(b"x", record(key, b"1")) + MEMBER, rules)


@pytest.mark.parametrize("key", ["LIBARCHIVE.xattr.user.x", "MSWINDOWS.rawsd", "SCHILY.acl.access", "SCHILY.xattr.a.b"])
def test_layer_of_a_base_image_may_have_what_no_runtime_reads(key: str) -> None:
    assert len(walked(extended(b"x", record(key, b"1")) + MEMBER, IMAGE)) == 1


@pytest.mark.parametrize(
    "key", ["hdrcharset", "SCHILY.filetype", "SCHILY.devmajor", "GNU.sparse.map", "GNU.sparse.name"]
)
def test_layer_of_a_base_image_may_not_have_what_changes_a_member(key: str, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", f'"{key}"'):
        walked(extended(b"x", record(key, b"1")) + MEMBER, IMAGE)


@pytest.mark.parametrize(
    "name",
    [
        "trusted.overlay.opaque", "trusted.overlay.metacopy", "user.overlay.redirect", "user.containers.override_stat",
        "user.fuseoverlayfs.opaque", "security.selinux", "security.SMACK64EXEC", "security.evm",
        "system.posix_acl_access", "",
    ],
)  # fmt: skip
def test_attribute_that_no_engine_writes_is_refused(name: str, refused: Refused) -> None:
    for rules in (CHECKPOINT, DIFF):
        with refused("ArchiveAmbiguous", f'the attribute "{name}"'):
            walked(extended(b"x", record(f"SCHILY.xattr.{name}", b"y")) + MEMBER, rules)


@pytest.mark.parametrize("name", ["security.capability", "security.ima", "user.mine"])
def test_attributes_that_engines_write_belong_in_a_diff_and_not_in_a_tmpfs(name: str, refused: Refused) -> None:
    header = extended(b"x", record(f"SCHILY.xattr.{name}", b"\0\n=\xff"))
    assert walked(header + MEMBER, DIFF)[0].capabilities is (name == "security.capability")
    with refused("ArchiveAmbiguous", "no engine writes there"):
        walked(header + MEMBER, TMPFS)


@pytest.mark.parametrize(
    "content",
    [
        record("uid", b"1") * 2,
        record("path", b"b") + record("path", b"b"),
        record("SCHILY.xattr.user.x", b"1") + record("SCHILY.xattr.user.x", b"2"),
        record("comment", b"1") + record("comment", b"2"),
    ],
)
def test_record_given_twice_is_refused(content: bytes, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "twice"):
        walked(extended(b"x", content) + MEMBER, DIFF)


@pytest.mark.parametrize("key", ["path", "linkpath", "uname", "gname"])
@pytest.mark.parametrize("value", [b"", b"a\0b"])
def test_text_that_is_empty_or_has_a_zero_byte_is_refused(key: str, value: bytes, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", f'"{key}"'):
        walked(extended(b"x", record(key, value)) + MEMBER, DIFF)


@pytest.mark.parametrize("key", ["size", "uid", "gid"])
@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b" 1", b"1 ", b"01", b"1e3", b"0x1", b"1.0", b"9" * 30, b"\xd9\xa1"]
)
def test_number_in_no_plain_decimal_form_is_refused(key: str, value: bytes, refused: Refused) -> None:
    with refused("ArchiveDamaged", f"no valid {key}"):
        walked(extended(b"x", record(key, value)) + MEMBER, DIFF)


@pytest.mark.parametrize("key", ["uid", "gid"])
@pytest.mark.parametrize("value", [(1 << 32) - 1, 1 << 32, (1 << 32) + 1000, (1 << 63) - 1])
def test_owner_that_chown_would_cut_is_refused(key: str, value: int, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", f"the {key} {value}, which some programs cut"):
        walked(extended(b"x", record(key, b"%d" % value)) + MEMBER, DIFF)


@pytest.mark.parametrize("value", [b"", b"x", b"1.", b".5", b"1e9", b"nan", b"1" * 19])
def test_time_that_is_none_is_refused(value: bytes, refused: Refused) -> None:
    for key in ("mtime", "atime", "ctime"):
        with refused("ArchiveDamaged", f"no valid {key}"):
            walked(extended(b"x", record(key, value)) + MEMBER, DIFF)


def test_size_may_stand_in_the_extended_header_alone_or_agree(refused: Refused) -> None:
    content = b"x" * 512
    empty = block("a") + content + END
    assert walked(extended(b"x", records(size="512")) + empty)[0].size == 512
    assert walked(extended(b"x", records(size="512")) + archive(member("a", content)))[0].size == 512
    with refused("ArchiveAmbiguous", "512 bytes by its header and 1 by its extended header"):
        walked(extended(b"x", records(size="1")) + archive(member("a", content)))


@pytest.mark.parametrize(
    "content",
    [b"99 path=b\n", b"x path=b\n", b"10 path=bb", b"7 path\n", b"0 =\n", b"9" * 23 + b" a=b\n", b"5 =b\n",
     b"010 path=b\n", b"+10 path=b\n", b"8 a\0b=c\n", b"6 \xff=c\n", b"\0", b"10 path=b\n\0"],
)  # fmt: skip
def test_malformed_record_is_refused(content: bytes, refused: Refused) -> None:
    with refused("ArchiveDamaged", "extended header"):
        walked(extended(b"x", content) + MEMBER, DIFF)


def test_huge_extended_header_is_refused(refused: Refused) -> None:
    with refused("ArchiveDamaged", "claims"):
        walked(extended(b"x", b"", size=1 << 20) + MEMBER)


def test_name_with_a_zero_byte_is_refused_in_a_record(refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "zero byte"):
        walked(extended(b"x", record("path", b"a\0b")) + MEMBER)
