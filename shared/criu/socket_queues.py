"""What was on its way between Unix sockets: sk-queues.img, whose entries each have their bytes behind them.

Sources: images/sk-packet.proto, criu/sk-queue.c (collect_one_packet, prepare_scms). The bytes themselves are not read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from shared.criu.criu_pb2 import SkPacketEntry
from shared.criu.decode import damaged, decode
from shared.criu.images import ImageDirectory, Kind, wrong_magic

_U32: Final = struct.Struct("<I")
_ENTRY_BYTES_MAX: Final = 4096
"""An entry with 253 files in flight has some 1,500 bytes."""
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class QueuedPacket:
    receiver: int
    """Id of the socket that it waits at."""
    offset: int
    """Of its bytes in sk-queues.img."""
    size: int
    rights: tuple[tuple[int, ...], ...] = ()
    """Ids of the files in each list that goes with it (SCM_RIGHTS); CRIU accepts one list …"""
    kinds: tuple[int, ...] = ()
    """… and what each list is: SCM_RIGHTS = 1 (linux/socket.h)."""


def read_packets(images: ImageDirectory) -> tuple[QueuedPacket, ...]:
    """Every packet, in the image's order. Raises CheckpointInvalid: WrongMagic, ImageDamaged, ImageUnknown."""
    if Kind.SK_QUEUES.file() not in images:
        return ()
    name = images.path(Kind.SK_QUEUES.file())
    end = images.files.size(name)
    found = []
    with images.files.open(name) as image:
        if image.read(len(Kind.SK_QUEUES.header)) != Kind.SK_QUEUES.header:
            raise wrong_magic(name, Kind.SK_QUEUES.value)
        position = len(Kind.SK_QUEUES.header)
        while position < end:
            prefix = image.read(4)
            size = _U32.unpack(prefix)[0] if len(prefix) == 4 else -1
            content = image.read(size) if 0 <= size <= _ENTRY_BYTES_MAX else b""
            if len(content) != size:
                raise damaged(name, "ends in the middle of a message, or has too large a one")
            images.budget.spend(name, size=size, entries=1)
            entry = decode(SkPacketEntry, content, name)
            position += 4 + size
            found.append(_packet(entry, position))
            if entry.length > end - position:
                raise damaged(name, f"ends in the middle of a packet of {entry.length} bytes")
            _skip(image, entry.length)
            position += entry.length
    return tuple(found)


def _packet(entry: SkPacketEntry, offset: int) -> QueuedPacket:
    return QueuedPacket(
        receiver=entry.id_for,
        offset=offset,
        size=entry.length,
        rights=tuple(tuple(each.rights) for each in entry.scm),
        kinds=tuple(each.type for each in entry.scm),
    )


def _skip(image: BinaryIO, size: int) -> None:
    while size and (piece := image.read(min(size, _CHUNK_BYTES))):
        size -= len(piece)
