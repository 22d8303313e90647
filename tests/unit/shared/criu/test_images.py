"""Framing of image files: magic number, then length and message."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from shared.archive import CheckpointFiles
from shared.criu import images
from shared.criu.criu_pb2 import CoreEntry, GhostFileEntry, PstreeEntry
from shared.criu.images import ImageDirectory, Kind, header, join, split
from shared.criu.magic import MAGIC
from tests.support.checkpoints import SyntheticDump

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]
PSTREE = Kind.PSTREE.header


def entry(content: bytes, size: int | None = None) -> bytes:
    return struct.pack("<I", len(content) if size is None else size) + content


ROOT = entry(PstreeEntry(pid=1, ppid=0, pgid=1, sid=1, threads=[1]).SerializeToString())


def test_messages_of_an_image() -> None:
    messages = [PstreeEntry(pid=pid, ppid=pid - 1, pgid=1, sid=1, threads=[pid]) for pid in (1, 2)]
    content = join(Kind.PSTREE, list(messages))
    assert content[:8] == bytes.fromhex("1943565430302750")
    assert [PstreeEntry.FromString(piece) for piece in split(content, Kind.PSTREE, "x")] == messages


def test_inventory_alone_has_no_common_magic() -> None:
    assert header("inventory.img") == bytes.fromhex("16313158")
    assert all(header(pattern)[:4] == bytes.fromhex("19435654") for pattern in MAGIC if pattern != "inventory.img")


def test_every_kind_read_here_has_a_magic_number() -> None:
    assert {kind.value for kind in Kind} <= set(MAGIC)


def test_magic_numbers_of_real_images(sample_images: dict[str, bytes]) -> None:
    known = 0
    for name, content in sample_images.items():
        for kind in Kind:
            start, numbered, end = kind.value.partition("%")
            if name == kind.value or (numbered and name.startswith(start) and name[len(start) : -len(end)].isdigit()):
                assert content.startswith(kind.header), name
                known += 1
    assert known > 15


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    "start", [b"", b"\x19", bytes(8), bytes.fromhex("19435654"), bytes.fromhex("1943565400000000")]
)
def test_wrong_magic_is_named(kind: Kind, start: bytes, refused: Refused) -> None:
    with refused("WrongMagic", "the/file.img"):
        list(split(start, kind, "the/file.img"))


def test_image_of_another_kind_is_refused(refused: Refused) -> None:
    with refused("WrongMagic", "pstree.img"):
        list(split(join(Kind.MM, []), Kind.PSTREE, "pstree.img"))


@pytest.mark.parametrize(
    "rest",
    [b"\1", b"\1\0\0", entry(b"", 1), entry(b"abc", 4), entry(b"abc", 0xFFFFFFFF), entry(b"abc") + b"\0\0\0"],
    ids=lambda rest: rest.hex(),
)
def test_image_that_ends_early_is_refused(rest: bytes, refused: Refused) -> None:
    with refused("ImageDamaged", "pstree.img", "ends in the middle"):
        list(split(PSTREE + rest, Kind.PSTREE, "pstree.img"))


def test_too_many_messages_in_all_are_refused(
    dumped: Dumped, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(images, "DUMP_ENTRIES_MAX", 5)
    files = dumped({"pstree.img": PSTREE + ROOT * 3, "files.img": Kind.FILES.header + ROOT * 3})
    directory = ImageDirectory(files, "")
    assert len(directory.entries(Kind.PSTREE, PstreeEntry)) == 3
    with refused("DumpTooLarge", "files.img"):
        directory.entries(Kind.FILES, PstreeEntry)


def test_too_many_bytes_in_all_are_refused(dumped: Dumped, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(images, "DUMP_BYTES_MAX", 85)
    files = dumped({f"core-{number}.img": Kind.CORE.header + entry(b"\x08\1") for number in range(1, 9)})
    directory = ImageDirectory(files, "")
    with refused("DumpTooLarge", "core-7.img"):
        for number in range(1, 9):
            directory.one(Kind.CORE, CoreEntry, number)


def test_streamed_messages(dumped: Dumped) -> None:
    files = dumped({"pagemap-1.img": Kind.PAGEMAP.header + entry(b"a") + entry(b"") + entry(b"bc")})
    assert list(ImageDirectory(files, "").stream(Kind.PAGEMAP, 1)) == [b"a", b"", b"bc"]


@pytest.mark.parametrize("rest", [b"\1", b"\1\0\0", entry(b"", 1), entry(b"abc", 4), entry(bytes(5000))])
def test_streamed_image_that_ends_early_is_refused(rest: bytes, dumped: Dumped, refused: Refused) -> None:
    files = dumped({"pagemap-1.img": Kind.PAGEMAP.header + rest})
    with refused("ImageDamaged", "pagemap-1.img", "ends in the middle"):
        list(ImageDirectory(files, "").stream(Kind.PAGEMAP, 1))


def test_streamed_image_of_another_kind_is_refused(dumped: Dumped, refused: Refused) -> None:
    with refused("WrongMagic", "pagemap-1.img"):
        list(ImageDirectory(dumped({"pagemap-1.img": PSTREE}), "").stream(Kind.PAGEMAP, 1))


def test_too_large_pagemap_is_not_read(dumped: Dumped, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(images, "PAGEMAP_BYTES_MAX", 10)
    files = dumped({"pagemap-1.img": Kind.PAGEMAP.header + entry(b"abc")})
    with refused("FileTooLarge", "pagemap-1.img"):
        list(ImageDirectory(files, "").stream(Kind.PAGEMAP, 1))


def test_too_large_message_is_refused(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(images, "ENTRY_BYTES_MAX", 3)
    with refused("ImageDamaged", "too large"):
        list(split(PSTREE + entry(b"abcd"), Kind.PSTREE, "x"))


def test_too_large_image_is_not_read(dumped: Dumped, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(images, "IMAGE_BYTES_MAX", 10)
    with refused("FileTooLarge", "checkpoint/core-1.img"):
        ImageDirectory(dumped(SyntheticDump.of_processes()), "checkpoint").entries(Kind.CORE, CoreEntry, 1)


def test_message_that_does_not_decode_is_named(dumped: Dumped, refused: Refused) -> None:
    files = {"checkpoint/core-1.img": Kind.CORE.header + entry(b"\xff\xff\xff")}
    with refused("ImageDamaged", "checkpoint/core-1.img", "does not decode"):
        ImageDirectory(dumped(files), "checkpoint").entries(Kind.CORE, CoreEntry, 1)


@pytest.mark.parametrize("count", [0, 2])
def test_image_of_one_message_has_exactly_one(count: int, dumped: Dumped, refused: Refused) -> None:
    files = {"core-1.img": Kind.CORE.header + entry(b"") * count}
    with refused("ImageDamaged", "core-1.img", "instead of one"):
        ImageDirectory(dumped(files), "").one(Kind.CORE, CoreEntry, 1)


def ghost(rest: bytes) -> dict[str, bytes]:
    return {"checkpoint/ghost-file-1.img": Kind.GHOST_FILE.header + rest}


def test_first_message_before_raw_content(dumped: Dumped) -> None:
    message = GhostFileEntry(uid=1, gid=2, mode=0o100644).SerializeToString()
    found = ImageDirectory(dumped(ghost(entry(message) + b"raw")), "checkpoint").first(
        Kind.GHOST_FILE, GhostFileEntry, 1
    )
    assert (found.uid, found.gid, found.mode) == (1, 2, 0o100644)


@pytest.mark.parametrize("rest", [b"", b"\1\0", entry(b"", 5), entry(b"ab", 5000), entry(b"\xff\xff")])
def test_damaged_first_message_is_named(rest: bytes, dumped: Dumped, refused: Refused) -> None:
    with refused("ImageDamaged", "checkpoint/ghost-file-1.img"):
        ImageDirectory(dumped(ghost(rest)), "checkpoint").first(Kind.GHOST_FILE, GhostFileEntry, 1)


def test_wrong_magic_before_raw_content_is_named(dumped: Dumped, refused: Refused) -> None:
    with refused("WrongMagic", "checkpoint/ghost-file-1.img"):
        ImageDirectory(dumped({"checkpoint/ghost-file-1.img": b"raw"}), "checkpoint").first(
            Kind.GHOST_FILE, GhostFileEntry, 1
        )


def test_images_may_lie_anywhere_in_the_checkpoint(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    for directory in ("", "checkpoint", "a/b"):
        found = ImageDirectory(dumped(dump.files(directory)), directory)
        assert sorted(found.names()) == sorted(dump.files(""))
        assert "core-1.img" in found
