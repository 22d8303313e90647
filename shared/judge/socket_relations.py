"""What sockets' entries must be to one another, and to processes and mounts, before CRIU reads them.

CRIU finds the other end of a Unix socket by its inode, connects to it by its name, and waits for it without end; it
trusts sizes, and aborts where it finds no process that has a socket (criu/sk-unix.c, criu/sk-queue.c, soccr/soccr.c).
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final

from shared.criu.criu_pb2 import FileEntry, InetSkEntry, NetlinkSkEntry, SkPacketEntry, TcpStreamEntry, UnixSkEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.open_files import KINDS, InternetSocket, OpenFile, UnixSocket
from shared.errors import Refused
from shared.judge.files_in_flight import may_be_in_flight
from shared.judge.reachable import reachable
from shared.judge.rules import field_refused
from shared.judge.socket_fields import RIGHTS_MAX

ESTABLISHED, CLOSED, LISTENS = 1, 7, 10
"""linux/tcp_states.h."""
CONNECTED: Final = frozenset({1, 2, 4, 5, 8, 9, 11})
"""States in which CRIU dumps a connection (criu/sk-inet.c, can_dump_inet_sk): ESTABLISHED, SYN_SENT, FIN_WAIT1,
FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING."""
_PROTOCOLS: Final[Mapping[tuple[int, int], Set[int]]] = {
    (socket.SOCK_STREAM, 2): {6},
    (socket.SOCK_STREAM, 10): {6},
    (socket.SOCK_DGRAM, 2): {17, 136, 1},
    (socket.SOCK_DGRAM, 10): {17, 136, 58},
}
"""By type and family: TCP; UDP, UDP-Lite, ICMP and ICMPv6. A raw socket has any."""
_ACCEPTED_MAX: Final = 4096
"""net.core.somaxconn, which the kernel cuts a backlog to."""
_PARTS: Final = {4: "isk", 5: "usk", 10: "psk", 13: "nlsk"}
"""fdinfo.proto, fd_types, and the part of FileEntry."""
_IMAGE: Final = Kind.FILES.file()


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """FieldExceeds. Raises CheckpointInvalid: ImageDamaged for a queue that is not as long as it says."""
    entries = [entry for entry in images.entries(Kind.FILES, FileEntry) if entry.type in _PARTS]
    return itertools.chain(
        _each(entries, dump),
        _unix(entries, dump),
        _packets(dump),
        _connections(images, dump),
    )


def _each(entries: Sequence[FileEntry], dump: Dump) -> Iterator[Refused]:
    held = reachable(dump)
    networks = {0} | {task.ids.net_ns for task in dump.tasks if task.alive}
    for entry in entries:
        part: Any = getattr(entry, _PARTS[entry.type])
        if part.id != entry.id:
            yield field_refused(_IMAGE, part, "id", part.id, "the file has another number")
        if (KINDS[entry.type], entry.id) not in held:
            yield field_refused(_IMAGE, part, "id", entry.id, "no process has that socket")
        if part.ns_id not in networks:
            yield field_refused(_IMAGE, part, "ns_id", part.ns_id, "no process is in that network namespace")
        if entry.type == 4:
            yield from _internet(entry.isk)
        elif entry.type == 13:
            yield from _netlink(entry.nlsk)


def _internet(entry: InetSkEntry) -> Iterator[Refused]:
    words = 1 if entry.family == socket.AF_INET else 4
    for name in ("src_addr", "dst_addr"):
        if len(getattr(entry, name)) != words:
            yield field_refused(_IMAGE, entry, name, len(getattr(entry, name)), "the family has other addresses")
    if entry.proto not in _PROTOCOLS.get((entry.type, entry.family), {entry.proto}):
        yield field_refused(_IMAGE, entry, "proto", entry.proto, "a socket of that type has another protocol")
    if entry.proto != socket.IPPROTO_TCP:
        if entry.state == LISTENS:
            yield field_refused(_IMAGE, entry, "state", entry.state, "only TCP listens")
    elif entry.type == socket.SOCK_RAW:
        if entry.dst_port:
            yield field_refused(_IMAGE, entry, "dst_port", entry.dst_port, "CRIU would take a raw socket for TCP")
    elif bool(entry.dst_port) != (entry.state in CONNECTED):
        yield field_refused(_IMAGE, entry, "state", entry.state, "a TCP connection has another port, others have none")


def _netlink(entry: NetlinkSkEntry) -> Iterator[Refused]:
    if len(entry.groups) > 1:
        yield field_refused(_IMAGE, entry, "groups", len(entry.groups), "CRIU restores one word of groups")


def _unix(entries: Sequence[FileEntry], dump: Dump) -> Iterator[Refused]:
    sockets = {file.id: file for file in dump.files if isinstance(file, UnixSocket)}
    by_inode = {file.inode: file for file in sockets.values()}
    inodes = Counter(file.inode for file in sockets.values())
    waiting = Counter(file.peer for file in sockets.values() if not _paired(file, by_inode.get(file.peer)))
    for entry in entries:
        if entry.type != 5:
            continue
        usk, file = entry.usk, sockets[entry.id]
        if not usk.ino or inodes[usk.ino] > 1:
            yield field_refused(_IMAGE, usk, "ino", usk.ino, "it is another socket's, or none's")
        yield from _name(usk)
        if usk.peer:
            yield from _peer(usk, file, by_inode.get(usk.peer))
        elif usk.state == LISTENS and waiting[usk.ino] > min(usk.backlog, _ACCEPTED_MAX) + 1:
            # The kernel lets backlog + 1 wait (net/unix/af_unix.c, unix_recvq_full); the next connect would not return.
            yield field_refused(_IMAGE, usk, "backlog", usk.backlog, f"{waiting[usk.ino]} connections wait there")


def _name(entry: UnixSkEntry) -> Iterator[Refused]:
    relative = bool(entry.name) and entry.name[0] not in b"\0/"
    if relative != entry.HasField("name_dir"):
        yield field_refused(
            _IMAGE, entry, "name_dir", entry.name_dir, "a relative path has a directory, and no other name has one"
        )
    if entry.name and entry.name[0] != 0:
        try:
            (entry.name_dir + entry.name).decode()
        except UnicodeDecodeError:
            yield Refused(
                "SocketExceeds",
                "the checkpoint has a Unix socket at a path that is no UTF-8, so nobody can look at it before CRIU "
                "does; rename the socket",
            )
        return
    for name in ("deleted", "file_perms", "mnt_id"):
        if entry.HasField(name):
            yield field_refused(_IMAGE, entry, name, getattr(entry, name), "the socket has no path")


def _paired(file: UnixSocket, other: UnixSocket | None) -> bool:
    """Whether CRIU makes both at once (socketpair) instead of connecting the one to the other."""
    return other is not None and other is not file and other.peer == file.inode


def _peer(entry: UnixSkEntry, file: UnixSocket, other: UnixSocket | None) -> Iterator[Refused]:
    why = None
    if other is None:
        why = "the dump has no such socket"
    elif other.type != file.type:
        why = "that socket is of another type"
    elif file.state == LISTENS:
        why = "a socket that listens is connected to none"
    elif not _paired(file, other):
        datagrams = file.type == socket.SOCK_DGRAM
        if not other.bound or (not datagrams and other.state != LISTENS):
            why = "nobody can connect to that socket"  # CRIU would wait without end (peer_is_not_prepared)
    if why:
        yield field_refused(_IMAGE, entry, "peer", entry.peer, why)


def _packets(dump: Dump) -> Iterator[Refused]:
    if not dump.packets:
        return
    image = Kind.SK_QUEUES.file()
    held = reachable(dump)
    sockets = {file.id: file for file in dump.files if isinstance(file, UnixSocket)}
    files: dict[int, list[OpenFile]] = {}
    for file in dump.files:
        files.setdefault(file.id, []).append(file)
    for packet in dump.packets:
        entry = SkPacketEntry(id_for=packet.receiver, length=packet.size)
        receiver = sockets.get(packet.receiver)
        if receiver is None or receiver.state == LISTENS or ("unixsk", receiver.id) not in held:
            yield field_refused(image, entry, "id_for", packet.receiver, "no process receives from such a socket")
        if len(packet.rights) > 1:
            yield field_refused(image, entry, "scm", len(packet.rights), "CRIU takes one list of files")
        yield from _rights(entry, list(itertools.chain(*packet.rights)), files, dump)


def _rights(
    entry: SkPacketEntry, numbers: Sequence[int], files: Mapping[int, Sequence[OpenFile]], dump: Dump
) -> Iterator[Refused]:
    image = Kind.SK_QUEUES.file()
    rights = entry.scm.add()
    if len(numbers) > RIGHTS_MAX:
        yield field_refused(image, rights, "rights", len(numbers), "the kernel sends at most 253 files at once")
    for number in numbers:
        found = files.get(number, [])
        if len(found) != 1:
            yield field_refused(image, rights, "rights", number, "the dump has no such file, or two of them")
        elif not may_be_in_flight(found[0], dump):
            yield Refused(
                "FileExceeds",
                f"{image} has file {number} ({found[0].kind}) on its way between two processes, and no process of the "
                "checkpoint holds it; nobody could tell what CRIU opens there, so take a new checkpoint when it has "
                "been received",
            )


def _connections(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    connected = [file for file in dump.files if isinstance(file, InternetSocket) and file.connected]
    inodes = Counter(file.inode for file in connected)
    for file in connected:
        if inodes[file.inode] > 1:
            yield field_refused(_IMAGE, InetSkEntry(), "ino", file.inode, "two connections would have one image")
        if reason := _not_unicast(file):
            yield field_refused(_IMAGE, InetSkEntry(), *reason)
        image = Kind.TCP_STREAM.file(f"{file.inode:x}")
        if image in images:
            yield from _stream(images, image, file.inode)


def _not_unicast(file: InternetSocket) -> tuple[str, str, str] | None:
    """CRIU sends a half closed connection's own address the packet that ends it, as from the other end (send_fin)."""
    for name, text in (("src_addr", file.source), ("dst_addr", file.destination)):
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_multicast or address.is_unspecified or address == ipaddress.IPv4Address("255.255.255.255"):
            return name, text, "no TCP connection has such an address"
    return None


def _stream(images: ImageDirectory, image: str, inode: int) -> Iterator[Refused]:
    entry = images.first(Kind.TCP_STREAM, TcpStreamEntry, f"{inode:x}")
    size = images.files.size(images.path(image)) - stream_offset(entry)
    if size != entry.inq_len + entry.outq_len:
        raise damaged(
            images.path(image), f"has {size} bytes instead of {entry.inq_len} received and {entry.outq_len} to send"
        )
    if not entry.HasField("unsq_len") or entry.unsq_len > entry.outq_len:
        yield field_refused(image, entry, "unsq_len", entry.unsq_len, "it is no part of the bytes to send")


def stream_offset(entry: TcpStreamEntry) -> int:
    """Where the queues' bytes begin."""
    return len(Kind.TCP_STREAM.header) + 4 + entry.ByteSize()
