"""Archives that another reader might see differently, or that are not archives, are refused."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from shared.tar import CHECKPOINT, MEMBERS_MAX, TMPFS, MemberWalk
from tests.support.checkpoints import Member, member
from tests.support.tars import END, Bytes, archive, block, extended, header_changed, walked

Refused = Callable[..., Any]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_sizes_and_offsets_of_every_format(form: int) -> None:
    content = archive(member("d/", kind=tarfile.DIRTYPE), member("d/a", b"12345"), member("./b", b""), form=form)
    found = walked(content)
    assert [(entry.name, entry.kind, entry.size) for entry in found] == [
        ("d", "directory", 0),
        ("d/a", "file", 5),
        ("b", "file", 0),
    ]
    assert content[found[1].offset : found[1].offset + 5] == b"12345"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_longer_than_a_header_holds(form: int) -> None:
    name = "f" * 120 + "/" + "g" * 200
    assert [entry.name for entry in walked(archive(member(name, b"x"), form=form))] == [name]


def test_ustar_prefix_belongs_to_the_name() -> None:
    name = "p" * 90 + "/" + "n" * 90
    assert walked(archive(member(name, b"x"), form=tarfile.USTAR_FORMAT))[0].name == name


def test_pax_size_wins_over_the_header() -> None:
    first = bytearray(archive(member("a", b"x" * 600, pax_headers={"size": "600"})))
    at = first.index(b"ustar", 600) - 257  # the member's own header, after the extended one
    header = bytearray(first[at : at + 512])
    header[124:136] = b"00000000000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    first[at : at + 512] = header
    (found,) = walked(bytes(first))
    assert found.size == 600


def test_size_of_8_gib_and_more_is_read_in_base_256() -> None:
    content = header_changed(archive(member("a", b"")), 124, b"\x80" + (1 << 34).to_bytes(11))
    walk = MemberWalk(Bytes(content), "the archive", CHECKPOINT).members()
    assert next(walk).size == 1 << 34


def test_size_pretending_16_tib_is_refused(refused: Refused) -> None:
    with refused("MemberTooLarge", '"a"'):
        walked(header_changed(archive(member("a", b"")), 124, b"\x80" + ((1 << 44) + 1).to_bytes(11)))


@pytest.mark.parametrize("size", [b"-0000000001\0", b"0000000008x\0", b"\xff" * 12, b"99999999999\0"])
def test_size_that_is_no_number_is_refused(size: bytes, refused: Refused) -> None:
    with refused("ArchiveDamaged", "no valid size"):
        walked(header_changed(archive(member("a", b"")), 124, size))


KINDS = {
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "FIFO",
    tarfile.GNUTYPE_SPARSE: "sparse",
    b"Z": "unknown kind",
    b"V": "unknown kind",
}


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_links_devices_and_the_like_are_refused(kind: bytes, refused: Refused) -> None:
    with refused("MemberKind", '"evil"', KINDS[kind]):
        walked(block("evil", kind=kind, linkname="x" if kind in b"12" else "", form=tarfile.GNU_FORMAT) + END)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/.."])
def test_names_that_lead_outside_are_refused(name: str, refused: Refused) -> None:
    with refused("MemberName"):
        walked(archive(member(name, b"x")))


def test_pax_path_that_leads_outside_is_refused(refused: Refused) -> None:
    with refused("MemberName", ".."):
        walked(archive(member("a", b"x", pax_headers={"path": "../a"})))


def test_name_that_is_not_utf_8_is_refused(refused: Refused) -> None:
    with refused("MemberName", "not UTF-8"):
        walked(header_changed(archive(member("a", b"")), 0, b"\xff\xfe"))


def test_name_too_long_for_a_file_system_is_refused(refused: Refused) -> None:
    with refused("MemberName", "too long"):
        walked(archive(member("n" * 256, b"x")))


def test_folders_nested_too_deeply_are_refused(refused: Refused) -> None:
    with refused("MemberName"):
        walked(archive(member("a/" * 40 + "b", b"x")))


def test_name_with_terminal_controls_is_shown_harmless(refused: Refused) -> None:
    with refused("MemberName", r"\x1b"):
        walked(archive(member("/\x1b[2J\n", b"x")))


def test_link_with_a_long_target_is_refused_as_a_link(refused: Refused) -> None:
    link = member("a", kind=tarfile.SYMTYPE, linkname="t" * 300)
    with refused("MemberKind", "symbolic link"):
        walked(archive(link, form=tarfile.GNU_FORMAT))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\x7fb", "a\u202eb"])
def test_name_that_garbles_a_terminal_is_refused(name: str, refused: Refused) -> None:
    with refused("MemberName", "control characters"):
        walked(archive(member(name, b"x")))


def test_where_every_kind_is_wanted_names_may_be_any_bytes() -> None:
    content = header_changed(archive(member("abc", b"")), 0, b"\xff\n\x1b")
    assert walked(content, TMPFS)[0].name == "\\xff\n\x1b"


def test_where_every_kind_is_wanted_names_still_may_not_lead_outside(refused: Refused) -> None:
    with refused("MemberName", ".."):
        walked(archive(member("../x", b"")), TMPFS)


@pytest.mark.parametrize("name", ["", ".", "./"])
def test_file_without_a_name_is_refused(name: str, refused: Refused) -> None:
    content = header_changed(archive(member("aa", b"")), 0, name.encode().ljust(2, b"\0"))
    with pytest.raises(Exception, match="name") as caught:
        walked(content)
    assert caught.value.reason in ("MemberName", "ArchiveAmbiguous")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "pair",
    [
        (member("a", b"1"), member("a", b"2")),
        (member("a", b"1"), member("./a", b"2")),
        (member("a", b"1"), member("a/b", b"2")),
        (member("a/b", b"1"), member("a", b"2")),
        (member("a", b"1"), member("a/", kind=tarfile.DIRTYPE)),
    ],
)
def test_one_name_twice_is_refused(pair: tuple[Member, Member], refused: Refused) -> None:
    with refused("MemberDuplicate", '"a"'):
        walked(archive(*pair))


def test_one_folder_twice_is_harmless() -> None:
    folder = member("a/", kind=tarfile.DIRTYPE)
    assert len(walked(archive(folder, folder, member("a/b", b"1")))) == 3


def test_folder_with_content_is_refused(refused: Refused) -> None:
    content = header_changed(archive(member("a", b"x" * 512)), 156, b"5")
    with refused("ArchiveAmbiguous", "has content"):
        walked(content)


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("shared.tar.tree.MEMBERS_MAX", 3)
    assert MEMBERS_MAX == 100_000
    assert len(walked(archive(*(member(f"f{n}", b"") for n in range(3))))) == 3
    with refused("TooManyMembers"):
        walked(archive(*(member(f"f{n}", b"") for n in range(4))))


def test_too_long_names_in_all_are_refused(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("shared.tar.tree.NAMES_BYTES_MAX", 10)
    with refused("TooManyMembers"):
        walked(archive(member("a" * 11, b"")))


def test_wrong_checksum_is_refused(refused: Refused) -> None:
    content = bytearray(archive(member("a", b"x")))
    content[0] ^= 1
    with refused("ArchiveDamaged", "checksum"):
        walked(bytes(content))


def test_signed_checksum_of_old_tars_is_taken() -> None:
    header = bytearray(archive(member("ä", b""), form=tarfile.GNU_FORMAT))
    header[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in header[:512])
    header[148:156] = b"%06o\0 " % signed
    assert walked(bytes(header))[0].name == "ä"


def test_end_needs_two_zero_blocks(refused: Refused) -> None:
    content = archive(member("a", b"x"))
    for missing in (512, 1024):
        with refused("ArchiveTruncated"):
            walked(content[:-missing])


def test_zero_block_between_members_is_refused(refused: Refused) -> None:
    content = archive(member("a", b"x"))
    with refused("ArchiveAmbiguous", "single zero block"):
        walked(content[:-512] + archive(member("b", b"x")))


def test_zeros_after_the_end_are_padding() -> None:
    assert len(walked(archive(member("a", b"x")) + bytes(9000))) == 1


def test_hidden_members_after_the_end_are_refused(refused: Refused) -> None:
    with refused("ArchiveAmbiguous", "follows the end"):
        walked(archive(member("a", b"x")) + archive(member("b", b"x")))


def test_endless_padding_is_refused(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("shared.tar.walk.PADDING_BYTES_MAX", 1024)
    with refused("ArchiveAmbiguous", "follows the end"):
        walked(archive(member("a", b"x")) + bytes(4096))


def test_truncation_at_every_byte_of_a_small_archive_is_noticed(refused: Refused) -> None:
    content = archive(member("d/", kind=tarfile.DIRTYPE), member("d/" + "n" * 150, b"x" * 700), member("b", b"y"))
    for length in range(0, len(content), 37):
        with refused("ArchiveTruncated"):
            walked(content[:length])


def test_extended_header_without_a_member_is_refused(refused: Refused) -> None:
    with refused("ArchiveDamaged", "describes no member"):
        walked(extended(b"x", b"10 path=b\n") + bytes(1024))


def test_where_every_kind_is_wanted_device_nodes_carry_their_numbers() -> None:
    content = archive(
        member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("link", kind=tarfile.SYMTYPE, linkname="/proc/self/fd/0"),
        form=tarfile.GNU_FORMAT,
    )
    node, link = walked(content, TMPFS)
    assert (node.kind, node.device, node.mode) == ("character device", (1, 3), 0o666)
    assert link.kind == "symbolic link"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_links_say_what_they_name(form: int) -> None:
    content = archive(
        member("bin/sh", b"1"),
        member("bin/hard", kind=tarfile.LNKTYPE, linkname="bin/sh"),
        member("bin/soft", kind=tarfile.SYMTYPE, linkname="../sh"),
        form=form,
    )
    found = walked(content, TMPFS)
    assert [(entry.kind, entry.target) for entry in found] == [
        ("file", ""),
        ("hard link", "bin/sh"),
        ("symbolic link", "../sh"),
    ]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_target_of_a_link_is_whole_and_of_that_link_alone(form: int) -> None:
    long = "d/" * 20 + "x" * 150
    content = archive(
        member("a", kind=tarfile.SYMTYPE, linkname=long), member("b", kind=tarfile.SYMTYPE, linkname="c"), form=form
    )
    assert [entry.target for entry in walked(content, TMPFS)] == [long, "c"]


def test_start_of_a_member_is_read_and_the_rest_passed_over() -> None:
    walk = MemberWalk(Bytes(archive(member("a", b"abcdef" * 200), member("b", b"xyz"))), "the archive", CHECKPOINT)
    members = walk.members()
    next(members)
    assert walk.start(3) == b"abc"
    assert walk.start(3) == b"def"
    assert next(members).name == "b"
    assert walk.start(100) == b"xyz"
    assert walk.start(100) == b""
    assert list(members) == []
