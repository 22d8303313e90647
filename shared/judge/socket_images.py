"""Writes the images of sockets: what waited in them, and TCP connections.

Entries of the sockets themselves are part of files.img; ``derive_socket`` sets what in them follows from others.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import FileEntry, ScmEntry, SkPacketEntry, TcpStreamEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, join
from shared.criu.open_files import InternetSocket
from shared.judge.rules import Rules
from shared.judge.socket_relations import ESTABLISHED, stream_offset
from shared.judge.writing import ImageFile, Raw

_U32: Final = struct.Struct("<I")
_NETLINK_CONNECTED: Final = 1


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """sk-queues.img, and a tcp-stream image for each connection that has one. Raises Refused("FieldExceeds")."""
    if dump.packets:
        yield _queues(dump, rules)
    for file in dump.files:
        if isinstance(file, InternetSocket) and file.connected:
            number = f"{file.inode:x}"
            if Kind.TCP_STREAM.file(number) in images:
                yield _stream(images, number, rules)


def derive_socket(entry: FileEntry) -> None:
    """Sets what a socket's entry has by others of its fields, after the rules were applied. Changes ``entry``."""
    if entry.HasField("usk"):
        usk = entry.usk
        if usk.type != socket.SOCK_DGRAM and usk.state == ESTABLISHED:
            # CRIU gives no end of a connection its name, but would remove what another socket has at the path.
            usk.name = b""
            for field in ("name_dir", "deleted", "file_perms", "mnt_id"):
                usk.ClearField(field)
    elif entry.HasField("nlsk") and entry.nlsk.state == _NETLINK_CONNECTED:
        nlsk = entry.nlsk
        if not nlsk.dst_portid and not nlsk.dst_group:
            # Connected to the kernel. CRIU would shift by -1 and connect it to the last group (criu/sk-netlink.c).
            nlsk.state = 0


def _queues(dump: Dump, rules: Rules) -> ImageFile:
    name = Kind.SK_QUEUES.file()
    pieces: list[bytes | Raw] = [Kind.SK_QUEUES.header]
    for packet in dump.packets:
        entry = SkPacketEntry(
            id_for=packet.receiver,
            length=packet.size,
            scm=[ScmEntry(type=kind, rights=each) for kind, each in zip(packet.kinds, packet.rights, strict=True)],
        )
        rules.apply(entry, name)
        content = entry.SerializeToString(deterministic=True)
        pieces.append(_U32.pack(len(content)) + content)
        if packet.size:
            pieces.append(Raw(name, packet.offset, packet.size))
    return ImageFile(name, tuple(pieces))


def _stream(images: ImageDirectory, number: str, rules: Rules) -> ImageFile:
    name = Kind.TCP_STREAM.file(number)
    entry = images.first(Kind.TCP_STREAM, TcpStreamEntry, number)
    queued = Raw(name, stream_offset(entry), entry.inq_len + entry.outq_len)
    rules.apply(entry, name)
    start = join(Kind.TCP_STREAM, [entry])
    return ImageFile(name, (start, queued) if queued.size else (start,))
