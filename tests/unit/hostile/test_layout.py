"""Images taken apart and put together again by the suite's own reader."""

from __future__ import annotations

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.magic import MAGIC
from tests.hostile.generator.layout import MESSAGES, Part, join, parse, pattern_of


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pstree.img", [pb.PstreeEntry(pid=1, ppid=0, pgid=1, sid=1)] * 2),
        ("pagemap-1.img", [pb.PagemapHead(pages_id=1), pb.PagemapEntry(vaddr=4096, compat_nr_pages=1)]),
        ("pipes-data.img", [pb.PipeDataEntry(pipe_id=1, handle_bytes=3), b"abc"] * 2),
        ("ghost-file-1.img", [pb.GhostFileEntry(uid=0, gid=0, mode=0o100644), b"all of the rest"]),
        (
            "ghost-file-1.img",
            [pb.GhostFileEntry(uid=0, gid=0, mode=0, chunks=True), pb.GhostChunkEntry(len=2, off=9), b"xy"],
        ),
        (
            "ipcns-msg-1.img",
            [
                pb.IpcMsgEntry(
                    desc=pb.IpcDescEntry(key=1, uid=0, gid=0, cuid=0, cgid=0, mode=0, id=0), qbytes=9, qnum=1
                ),
                pb.IpcMsg(mtype=1, msize=3),
                b"abc\0\0\0\0\0",
            ],
        ),
    ],
)
def test_parts_come_back_as_they_were(name: str, parts: list[Part]) -> None:
    assert parse(name, join(name, parts)) == parts


def test_what_does_not_decode_stays_as_bytes() -> None:
    whole = join("pstree.img", [pb.PstreeEntry(pid=1, ppid=0, pgid=1, sid=1)]) + b"\xff\xff"
    assert parse("pstree.img", whole)[-1] == b"\xff\xff"
    assert join("pstree.img", parse("pstree.img", whole)) == whole


def test_every_image_with_a_magic_number_has_messages() -> None:
    assert MAGIC.keys() <= MESSAGES.keys()


def test_numbers_of_names_are_told() -> None:
    assert pattern_of("pagemap-shmem-17.img") == "pagemap-shmem-%.img"
    assert pattern_of("ghost-file-1f.img") == "ghost-file-%.img"
    assert pattern_of("pages-1.img") is None
