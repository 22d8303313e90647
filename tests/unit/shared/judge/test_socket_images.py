"""The images of sockets are written from judged messages; of the dump's bytes only what was queued is taken."""

from __future__ import annotations

from shared.criu import criu_pb2 as pb
from shared.criu.dump import read_dump
from shared.criu.images import ImageDirectory
from shared.judge import socket_fields
from shared.judge.rules import Rules
from shared.judge.socket_images import derive_socket, image_files
from shared.judge.writing import ImageFile, Raw
from tests.support.checkpoints import SyntheticDump, completed
from tests.support.pods import InMemory
from tests.unit.shared.judge.test_socket_relations import PAIR, Change, connection, eventfd, internet, queue, stream

RULES = Rules(socket_fields.FIELDS)


def written(*changes: Change) -> tuple[dict[str, ImageFile], dict[str, bytes]]:
    """What is written, and the dump's own files."""
    made = SyntheticDump.of_processes()
    for change in changes:
        change(made)
    files = made.files()
    opened = InMemory(files)
    found = image_files(ImageDirectory(opened, "checkpoint"), read_dump(opened), RULES)
    return {each.name: each for each in found}, files


def content(image: ImageFile, files: dict[str, bytes]) -> bytes:
    return b"".join(
        files[f"checkpoint/{piece.name}"][piece.offset : piece.offset + (piece.size or 0)]
        if isinstance(piece, Raw)
        else piece
        for piece in image.pieces
    )


def test_no_image_without_sockets() -> None:
    assert written() == ({}, SyntheticDump.of_processes().files())


def test_queues_are_written_as_they_were() -> None:
    found, files = written(*PAIR, eventfd(60), queue((50, b"abc", [[60]]), (51, b"", []), (51, b"de", [])))
    (image,) = found.values()
    assert content(image, files) == files["checkpoint/sk-queues.img"]
    assert [piece.size for piece in image.pieces if isinstance(piece, Raw)] == [3, 2]


def test_connection_is_written_under_its_inode() -> None:
    found, files = written(connection(0x3A), stream(0x3A, b"abcd", inq_len=1, outq_len=3))
    (image,) = found.values()
    assert image.name == "tcp-stream-3a.img"
    assert content(image, files) == files["checkpoint/tcp-stream-3a.img"]


def test_connection_without_queues_takes_no_bytes_of_the_dump() -> None:
    found, _ = written(connection(50), stream(50, b""))
    (image,) = found.values()
    assert not any(isinstance(piece, Raw) for piece in image.pieces)


def test_image_of_no_connection_is_not_written() -> None:
    found, _ = written(internet(50), stream(50, b""), stream(51, b""))
    assert found == {}


def test_end_of_a_connection_loses_the_path_that_criu_would_empty() -> None:
    usk = pb.UnixSkEntry(id=7, type=1, state=1, peer=8, name=b"/run/a\0", name_dir=b"/", deleted=True, mnt_id=1)
    usk.file_perms.mode = 0o140755
    entry = pb.FileEntry(type=5, id=7, usk=usk)
    derive_socket(entry)
    assert completed(entry) == completed(
        pb.FileEntry(type=5, id=7, usk=pb.UnixSkEntry(id=7, type=1, state=1, peer=8, name=b""))
    )


def test_sockets_that_criu_binds_keep_their_paths() -> None:
    for fields in ({"type": 1, "state": 10}, {"type": 2, "state": 1}, {"type": 5, "state": 7}):
        entry = pb.FileEntry(type=5, id=7, usk=pb.UnixSkEntry(id=7, name=b"/run/a\0", mnt_id=1, **fields))
        before = entry.SerializePartialToString()
        derive_socket(entry)
        assert entry.SerializePartialToString() == before


def test_netlink_socket_connected_to_the_kernel_is_connected_to_no_group() -> None:
    entry = pb.FileEntry(type=13, id=7, nlsk=pb.NetlinkSkEntry(id=7, state=1))
    derive_socket(entry)
    assert entry.nlsk.state == 0
    other = pb.FileEntry(type=13, id=7, nlsk=pb.NetlinkSkEntry(id=7, state=1, dst_group=3))
    derive_socket(other)
    assert other.nlsk.state == 1
