from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.archive import CheckpointFiles
from shared.criu.criu_pb2 import FdinfoEntry, FileEntry, InetSkEntry, PipeEntry, RegFileEntry, UnixSkEntry
from shared.criu.images import ImageDirectory
from shared.criu.open_files import (
    KINDS,
    Descriptor,
    InternetSocket,
    OpenFile,
    Pipe,
    RegularFile,
    SocketOptions,
    UnixSocket,
    read_descriptors,
    read_files,
)
from tests.support.checkpoints import SyntheticDump

Refused = Callable[..., Any]
Dumped = Callable[..., CheckpointFiles]


def opened(dump: SyntheticDump, dumped: Dumped) -> dict[int, OpenFile]:
    return {file.id: file for file in read_files(ImageDirectory(dumped(dump), "checkpoint"))}


def with_file(entry: FileEntry) -> SyntheticDump:
    dump = SyntheticDump.of_processes()
    dump.add_file(entry, descriptor=9)
    return dump


def tcp(**changes: Any) -> FileEntry:
    fields: dict[str, Any] = {
        "id": 50,
        "ino": 1,
        "family": 2,
        "type": 1,
        "proto": 6,
        "state": 1,
        "src_port": 8080,
        "dst_port": 40000,
        "src_addr": [0x0100007F],
        "dst_addr": [0x0200000A],
    }
    return FileEntry(type=4, id=50, isk=InetSkEntry(**(fields | changes)))


def test_files_of_an_ordinary_process(dumped: Dumped) -> None:
    found = opened(SyntheticDump.of_processes(), dumped)
    assert found[1] == RegularFile(1, "reg", "/bin/app", 147, 0, 0o100755, False)
    assert found[3] == Pipe(3, "pipe", 31)


def test_tcp_connection(dumped: Dumped) -> None:
    found = opened(with_file(tcp()), dumped)[50]
    assert found == InternetSocket(
        50, "inetsk", "ipv4", 1, 6, 1, "127.0.0.1", 8080, "10.0.0.2", 40000, options=SocketOptions(), inode=1
    )
    assert found.connected


@pytest.mark.parametrize(
    ("changes", "connected"),
    [
        ({"state": 10}, False),  # listening
        ({"state": 7}, False),  # closed
        ({"state": 8}, True),  # CLOSE_WAIT: still a connection
        ({"state": 2}, True),  # SYN_SENT
        ({"proto": 17, "type": 2, "state": 1}, False),  # a connected UDP socket needs no --tcp-established
    ],
)
def test_what_counts_as_a_tcp_connection(changes: dict[str, int], connected: bool, dumped: Dumped) -> None:
    found = opened(with_file(tcp(**changes)), dumped)[50]
    assert isinstance(found, InternetSocket)
    assert found.connected is connected


def test_ipv6_address(dumped: Dumped) -> None:
    entry = tcp(family=10, src_addr=[0, 0, 0, 0x01000000], dst_addr=[0xB80D0120, 0, 0, 0x01000000])
    found = opened(with_file(entry), dumped)[50]
    assert isinstance(found, InternetSocket)
    assert (found.family, found.source, found.destination) == ("ipv6", "::1", "2001:db8::1")


def test_unix_socket_keeps_its_abstract_name(dumped: Dumped) -> None:
    entry = UnixSkEntry(id=50, ino=5, type=1, state=10, peer=0, name=b"\0abstract\0name")
    found = opened(with_file(FileEntry(type=5, id=50, usk=entry)), dumped)[50]
    assert found == UnixSocket(50, "unixsk", 1, 10, 5, 0, b"\0abstract\0name", options=SocketOptions())


@pytest.mark.parametrize("number", [*range(6, 21), 21, 4711])
def test_other_kinds_are_kept_by_name(number: int, dumped: Dumped) -> None:
    found = opened(with_file(FileEntry(type=number, id=50)), dumped)[50]
    assert (found.id, found.kind) == (50, KINDS.get(number, f"unknown-{number}"))


def test_descriptors_by_table(dumped: Dumped) -> None:
    images = ImageDirectory(dumped(SyntheticDump.of_processes(2)), "checkpoint")
    found = read_descriptors(images, [1, 2])
    assert found[0] == Descriptor(1, 0, 2, "reg")
    assert [(entry.table, entry.number) for entry in found] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]


def test_table_without_an_image_is_empty(dumped: Dumped) -> None:
    dump = SyntheticDump.of_processes()
    del dump.images["fdinfo-1.img"]
    assert read_descriptors(ImageDirectory(dumped(dump), "checkpoint"), [1]) == ()


def reg(**fields: Any) -> FileEntry:
    return FileEntry(type=1, id=50, reg=RegFileEntry(**({"id": 50, "name": b"/x"} | fields)))


@pytest.mark.parametrize("path", [b"", b"x", b"../../etc/shadow", b"/../etc/shadow", b"/a/../../etc"])
def test_path_that_leads_outside_is_refused(path: bytes, dumped: Dumped, refused: Refused) -> None:
    with refused("ImagePath", "checkpoint/files.img", "outside the container"):
        opened(with_file(reg(name=path)), dumped)


DAMAGED = {
    "zero byte in a path": reg(name=b"/x\0y"),
    "other id inside (file)": reg(id=51),
    "other id inside (pipe)": FileEntry(type=2, id=50, pipe=PipeEntry(id=51)),
    "other id inside (socket)": tcp(id=51),
    "other id inside (unix)": FileEntry(type=5, id=50, usk=UnixSkEntry(id=51)),
    "unknown family": tcp(family=99),
    "port": tcp(src_port=65_536),
    "address of two words": tcp(src_addr=[1, 2]),
    "no address": tcp(dst_addr=[]),
    "file twice": FileEntry(type=1, id=1, reg=RegFileEntry(id=1, name=b"/x")),
    "zero byte in a socket's folder": FileEntry(type=5, id=50, usk=UnixSkEntry(id=50, name_dir=b"/a\0b")),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_odd_file_is_refused(case: str, dumped: Dumped, refused: Refused) -> None:
    with refused("ImageDamaged", "checkpoint/files.img"):
        opened(with_file(DAMAGED[case]), dumped)


def test_file_without_its_own_part_is_refused(dumped: Dumped) -> None:
    for number in (1, 2, 4, 5):
        with pytest.raises(Exception, match=r"files\.img") as caught:
            opened(with_file(FileEntry(type=number, id=50)), dumped)
        assert caught.value.reason in ("ImageDamaged", "ImagePath")  # type: ignore[attr-defined]


def test_image_without_files_is_refused_because_criu_would_read_older_ones(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["files.img"] = []
    with refused("ImageDamaged", "files.img", "no open file"):
        opened(dump, dumped)


def test_descriptor_twice_is_refused(dumped: Dumped, refused: Refused) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["fdinfo-1.img"].append(FdinfoEntry(id=2, type=1, fd=0))
    with refused("ImageDamaged", "fdinfo-1.img", "twice"):
        read_descriptors(ImageDirectory(dumped(dump), "checkpoint"), [1])
