"""Packets are read with their places; what does not add up is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from shared.archive import CheckpointFiles
from shared.criu.criu_pb2 import ScmEntry, SkPacketEntry
from shared.criu.images import ImageDirectory, Kind
from shared.criu.socket_queues import QueuedPacket, read_packets
from shared.errors import CheckpointInvalid

Dumped = Callable[[dict[str, bytes]], CheckpointFiles]


def packet(receiver: int, content: bytes, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    entry = SkPacketEntry(id_for=receiver, length=size, scm=[ScmEntry(type=1, rights=[3])]).SerializeToString()
    return struct.pack("<I", len(entry)) + entry + content


def read(content: bytes, dumped: Dumped) -> tuple[QueuedPacket, ...]:
    return read_packets(ImageDirectory(dumped({"checkpoint/sk-queues.img": content}), "checkpoint"))


def test_packets_with_their_places(dumped: Dumped) -> None:
    start = Kind.SK_QUEUES.header
    content = start + packet(7, b"abc") + packet(8, bytes(3_000_000)) + packet(7, b"")
    found = read(content, dumped)
    assert [(each.receiver, each.size, each.rights, each.kinds) for each in found] == [
        (7, 3, ((3,),), (1,)),
        (8, 3_000_000, ((3,),), (1,)),
        (7, 0, ((3,),), (1,)),
    ]
    assert content[found[0].offset :][:3] == b"abc"
    assert found[2].offset == len(content)


def test_no_image(dumped: Dumped) -> None:
    assert read_packets(ImageDirectory(dumped({"checkpoint/x": b""}), "checkpoint")) == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "WrongMagic"),
        (Kind.FILES.header, "WrongMagic"),
        (Kind.SK_QUEUES.header + b"\1", "ImageDamaged"),
        (Kind.SK_QUEUES.header + packet(7, b"")[:-1], "ImageDamaged"),
        (Kind.SK_QUEUES.header + packet(7, b"abc", 4), "ImageDamaged"),
        (Kind.SK_QUEUES.header + packet(7, b"", 0xFFFFFFFF), "ImageDamaged"),
        (Kind.SK_QUEUES.header + packet(7, b"abc") + b"x", "ImageDamaged"),
        (Kind.SK_QUEUES.header + struct.pack("<I", 1 << 20) + bytes(1 << 20), "ImageDamaged"),
        (Kind.SK_QUEUES.header + struct.pack("<I", 6) + b"\x08\x01\x10\x00\x18\x01", "ImageUnknown"),
    ],
)
def test_damaged(content: bytes, reason: str, dumped: Dumped) -> None:
    with pytest.raises(CheckpointInvalid) as failure:
        read(content, dumped)
    assert failure.value.reason == reason
