"""Files with holes: the forms that GNU tar writes for CRIU are read, and a map must fit its file."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from shared.tar import CHECKPOINT, DIFF, IMAGE, TMPFS, Rules
from tests.support.checkpoints import member
from tests.support.tars import END, archive, block, extended, header_changed, records, walked

Refused = Callable[..., Any]
NEXT = archive(member("next", b"y"))


def table(*pieces: tuple[int, int]) -> bytes:
    return b"".join(b"%011o\0%011o\0" % piece for piece in pieces)


def gnu(
    pieces: Sequence[tuple[int, int]], stored: int, real: int, *, more: int = 0, blocks: bytes = b"", at: int = 386
) -> bytes:
    header = header_changed(block("s", form=tarfile.GNU_FORMAT), 124, b"%011o\0" % stored)
    header = header_changed(header, at, table(*pieces))
    header = header_changed(header, 482, bytes([more]) + b"%011o\0" % real)
    return header_changed(header, 156, b"S") + blocks + b"x" * stored + bytes(-stored % 512)


def pax(content: bytes, *, stand_in: str = "./GNUSparseFile.7/s", **changes: str) -> bytes:
    described = {"major": "1", "minor": "0", "name": "./s", "realsize": "4096"} | changes
    header = extended(b"x", records(**{f"GNU__sparse__{key}": value for key, value in described.items() if value}))
    return (
        header + header_changed(block(stand_in), 124, b"%011o\0" % len(content)) + content + bytes(-len(content) % 512)
    )


def pax_map(*numbers: int | bytes) -> bytes:
    text = b"".join(b"%d\n" % each if isinstance(each, int) else each + b"\n" for each in numbers)
    return text + bytes(-len(text) % 512)


def test_map_in_the_header_of_gnu() -> None:
    first, second = walked(gnu([(0, 512), (1024, 512)], 1024, 4096) + NEXT, TMPFS)
    assert (first.name, first.kind, first.size, second.name) == ("s", "file", 1024, "next")


def test_map_of_gnu_that_goes_on_in_blocks() -> None:
    blocks = table(*[(n * 1024, 512) for n in range(4, 25)]) + b"\1" + bytes(7)
    blocks += table((25 * 1024, 512)).ljust(512, b"\0")
    whole = gnu([(n * 1024, 512) for n in range(4)], 26 * 512, 1 << 20, more=1, blocks=blocks) + NEXT
    first, second = walked(whole, TMPFS)
    assert whole[first.offset : first.offset + 3] == b"xxx"
    assert second.name == "next"


def test_map_of_pax_stands_before_the_content() -> None:
    whole = pax(pax_map(2, 0, 512, 4096, 0) + b"x" * 512) + NEXT
    first, second = walked(whole, TMPFS)
    assert (first.name, first.size, second.name) == ("s", 512, "next")
    assert whole[first.offset : first.offset + 3] == b"xxx"


def test_map_of_pax_longer_than_a_block() -> None:
    numbers = [number for n in range(100) for number in (n * 4096, 4)]
    (found, _) = walked(pax(pax_map(100, *numbers) + b"x" * 400, realsize="1000000") + NEXT, TMPFS)
    assert found.size == 400


@pytest.mark.parametrize(
    "sparse",
    [
        gnu([(0, 512)], 1024, 4096),
        gnu([(0, 1024)], 512, 4096),
        gnu([(0, 512)], 512, 100),
        gnu([(512, 512), (0, 512)], 1024, 4096),
        gnu([(0, 512), (256, 512)], 1024, 4096),
        pax(pax_map(1, 0, 512)),
        pax(pax_map(1, 4096, 512) + b"x" * 512),
        pax(pax_map(2, 512, 256, 0, 256) + b"x" * 512),
        pax(pax_map(b"01", 0, 512) + b"x" * 512),
        pax(pax_map(b"-1")),
        pax(pax_map(b"")),
        pax(b"1\n0\n512"),
        pax(b"1" * 1024),
        pax(pax_map((1 << 20) + 1)),
        pax(pax_map(1, 0, 512) + b"x" * 512, realsize="0x1000"),
    ],
)
def test_map_that_does_not_fit_is_refused(sparse: bytes, refused: Refused) -> None:
    with refused("ArchiveDamaged", "pieces" if b"1048577" in sparse else "map of holes"):
        walked(sparse + NEXT, TMPFS)


@pytest.mark.parametrize(
    ("sparse", "words"),
    [
        (gnu([(0, 512)], 512, 4096, at=410), "goes on after its end"),
        (gnu([(0, 512)], 512, 4096, more=2), "goes on after its end"),
        (gnu([(0, 512)], 512, 4096, more=1, blocks=bytes(512)), "goes on after its end"),
        (
            gnu([(n * 1024, 128) for n in range(4)], 512, 4096, more=1, blocks=bytes(505) + b"\1" + bytes(6)),
            "bytes after its map",
        ),
        (pax(pax_map(1, 0, 512)[:-1] + b"y" + b"x" * 512), "bytes after its map"),
        (pax(pax_map(0), major="0"), "another version"),
        (pax(pax_map(0), minor="1"), "another version"),
        (pax(pax_map(0), name="./t"), "two names"),
        (pax(pax_map(0), stand_in="./s"), "a name that GNU tar does not write"),
        (pax(pax_map(0), realsize=""), "in an unusual way"),
        (pax(pax_map(0), size="5"), "GNU.sparse.size"),
        (pax(pax_map(0), map="0,5"), "GNU.sparse.map"),
        (extended(b"x", records(mtime="1")) + gnu([(0, 512)], 512, 4096), "an extended header of another format"),
    ],
)
def test_sparse_file_that_programs_take_differently_is_refused(sparse: bytes, words: str, refused: Refused) -> None:
    with refused("ArchiveAmbiguous", words):
        walked(sparse + NEXT, TMPFS)


def test_sparse_file_that_is_no_file_is_refused(refused: Refused) -> None:
    header, _, _ = pax(b"").partition(block("./GNUSparseFile.7/s"))
    with refused("ArchiveAmbiguous", "sparse file"):
        walked(header + block("./GNUSparseFile.7/s", kind=b"2", linkname="/etc/shadow") + END, TMPFS)


@pytest.mark.parametrize("rules", [CHECKPOINT, DIFF, IMAGE])
def test_sparse_file_is_refused_where_no_engine_writes_one(rules: Rules, refused: Refused) -> None:
    with refused("MemberKind", "sparse file"):
        walked(gnu([(0, 512)], 512, 4096) + NEXT, rules)
    with refused("ArchiveAmbiguous", "GNU.sparse.major"):
        walked(pax(pax_map(0)) + NEXT, rules)
