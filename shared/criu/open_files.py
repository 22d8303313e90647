"""Open files of a dump by kind, and which descriptor of which table refers to which.

Sources: images/{fdinfo,regfile,sk-inet,sk-unix,pipe,tty,…}.proto, criu/files.c (collect_one_file), linux/tcp_states.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from google.protobuf.message import Message

from shared.criu.criu_pb2 import FdinfoEntry, FhEntry, FileEntry, FownEntry, InetSkEntry, TtyInfoEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind, path_text, text

KINDS: Final = {
    1: "reg",
    2: "pipe",
    3: "fifo",
    4: "inetsk",
    5: "unixsk",
    6: "eventfd",
    7: "eventpoll",
    8: "inotify",
    9: "signalfd",
    10: "packetsk",
    11: "tty",
    12: "fanotify",
    13: "netlinksk",
    14: "ns",
    15: "tun",
    16: "ext",
    17: "timerfd",
    18: "memfd",
    19: "bpfmap",
    20: "pidfd",
}
"""fdinfo.proto, fd_types; another number becomes ``unknown-<number>``."""
NOT_RECORDED: Final = -1
"""In place of a mount's id (regfile.proto)."""
_ESTABLISHED: Final = 1
_LISTEN: Final = 10
_CLOSE: Final = 7
"""linux/tcp_states.h, of Unix sockets too."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a file's signals go to, and as whom they are sent (fcntl(2), F_SETOWN_EX)."""

    pid: int
    uid: int
    euid: int


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What CRIU sets with its own rights."""

    mark: int = 0
    """SO_MARK, for the firewall and routing."""
    priority: int = 0
    """SO_PRIORITY; socket(7): more than 6 takes CAP_NET_ADMIN."""
    buffer_bytes: int = 0
    """The larger of SO_SNDBUF and SO_RCVBUF."""
    reuse_address: bool = False
    """SO_REUSEADDR."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file of which only the kind matters here (eventfd, tty, tun, …)."""

    id: int
    kind: str
    owner: Owner | None = field(default=None, kw_only=True)
    """None: nobody gets signals of it."""
    options: SocketOptions | None = field(default=None, kw_only=True)
    """Of a socket."""


@dataclass(frozen=True, slots=True)
class RegularFile(OpenFile):
    """A file, directory or device node opened by its path."""

    path: str
    mount: int
    """MountEntry.id, or NOT_RECORDED."""
    flags: int
    """open(2)."""
    mode: int | None
    """st_mode: what kind of file it was."""
    external: bool


@dataclass(frozen=True, slots=True)
class Pipe(OpenFile):
    """One end of a pipe."""

    pipe_id: int
    """The inode's number, as in runc's descriptors.json: ``pipe:[ID]``."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A file or directory that a process is told about."""

    path: str
    mount: int
    """MountEntry.id, or NOT_RECORDED: CRIU looks in the container's root."""


@dataclass(frozen=True, slots=True)
class Watcher(OpenFile):
    """An inotify or fanotify file."""

    watches: tuple[Watch, ...]
    """Those of which CRIU has found the path."""


@dataclass(frozen=True, slots=True)
class InternetSocket(OpenFile):
    family: str
    """``ipv4`` or ``ipv6``."""
    type: int
    """SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_RAW = 3."""
    protocol: int
    """IPPROTO_TCP = 6 …"""
    state: int
    """linux/tcp_states.h: TCP_ESTABLISHED = 1, TCP_CLOSE = 7, TCP_LISTEN = 10."""
    source: str
    source_port: int
    destination: str
    destination_port: int
    inode: int = 0
    """Its image of a connection is named by it, in hexadecimal."""

    @property
    def connected(self) -> bool:
        """Whether it is a TCP connection: neither listening nor closed.

        CRIU asks for the other port instead (criu/sk-inet.c); shared/judge sees that both say the same.
        """
        tcp = self.protocol == socket.IPPROTO_TCP and self.type != socket.SOCK_RAW
        return tcp and self.state not in (_LISTEN, _CLOSE)


@dataclass(frozen=True, slots=True)
class NamespaceFile(OpenFile):
    """An open /proc/<pid>/ns/…"""

    namespace: int
    """CRIU's number, as in TaskIds."""


@dataclass(frozen=True, slots=True)
class NetlinkSocket(OpenFile):
    protocol: int
    """NETLINK_… (linux/netlink.h)."""
    listens: bool
    """Whether to any group."""
    sends: bool
    """Whether to a group, or to another socket than the kernel's."""


@dataclass(frozen=True, slots=True)
class TimerDescriptor(OpenFile):
    clock: int
    """CLOCK_… (linux/time.h)."""


@dataclass(frozen=True, slots=True)
class Terminal(OpenFile):
    info: int
    """Id of its entry in tty-info.img."""


@dataclass(frozen=True, slots=True)
class UnixSocket(OpenFile):
    type: int
    state: int
    inode: int
    peer: int
    """Inode of the other end; 0: none."""
    name: bytes
    """A path, or, after a zero byte, an abstract name."""
    folder: str = ""
    """What a relative path starts from."""
    outside: bool = False
    """Whether CRIU is to have it from who calls it, from a plugin, or not at all (criu/sk-unix.c, USK_…)."""
    mount: int = NOT_RECORDED
    """MountEntry.id where its path is, or NOT_RECORDED."""
    deleted: bool = False
    """Whether its path was removed; CRIU makes it for a moment."""
    uid: int | None = None
    """Owner of what is at the path; None: not recorded."""
    gid: int | None = None
    backlog: int = 0
    """Connections that may wait at a listening socket."""

    @property
    def bound(self) -> bool:
        """Whether CRIU gives it its name again: an end of a connection only tells the listening socket's name."""
        return bool(self.name) and (self.type == socket.SOCK_DGRAM or self.state != _ESTABLISHED)

    @property
    def path(self) -> str | None:
        """As the process gave it, with links on the way; None for a socket that gets none."""
        if not self.bound:
            return None
        bare = self.name.split(b"\0", 1)[0].decode(errors="backslashreplace")
        if not bare:
            return None
        return bare if bare.startswith("/") else f"{self.folder}/{bare}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    table: int
    """TaskIds.files of the tasks that share it."""
    number: int
    file: int
    kind: str


def read_files(images: ImageDirectory) -> tuple[OpenFile, ...]:
    """Every open file. Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged, ImagePath."""
    name = images.path(Kind.FILES.file())
    entries = images.entries(Kind.FILES, FileEntry)
    if not entries:
        # CRIU would look for the separate images of versions before 3.0, which nobody has checked
        raise damaged(name, "has no open file; every process has its executable open")
    files = tuple(_file(entry, name) for entry in entries)
    if len({(file.kind, file.id) for file in files}) != len(files):
        raise damaged(name, "has one file twice")
    return files


def read_terminals(images: ImageDirectory) -> dict[int, int]:
    """Kind of each terminal (tty.proto, TtyType: PTY = 1, CONSOLE = 2, VT = 3 …) by the id of its entry."""
    if Kind.TTY_INFO.file() not in images:
        return {}
    return {entry.id: entry.type for entry in images.entries(Kind.TTY_INFO, TtyInfoEntry)}


def read_descriptors(images: ImageDirectory, tables: Iterable[int]) -> tuple[Descriptor, ...]:
    """The descriptors of each table, in the image's order; a table without an image is empty, as CRIU has it."""
    found: list[Descriptor] = []
    for table in tables:
        if Kind.FDINFO.file(table) not in images:
            continue
        entries = images.entries(Kind.FDINFO, FdinfoEntry, table)
        if len({entry.fd for entry in entries}) != len(entries):
            raise damaged(images.path(Kind.FDINFO.file(table)), "has one descriptor twice")
        found += [Descriptor(table, entry.fd, entry.id, _kind(entry.type)) for entry in entries]
    return tuple(found)


def _kind(number: int) -> str:
    return KINDS.get(number, f"unknown-{number}")


def _file(entry: FileEntry, name: str) -> OpenFile:
    return replace(_of_kind(entry, name), owner=_owner(entry), options=_options(entry))


def _owner(entry: FileEntry) -> Owner | None:
    """Of whatever kind the entry says that it is, and of every other kind that it has a part of."""
    for _, part in entry.ListFields():
        if isinstance(part, Message) and "fown" in part.DESCRIPTOR.fields_by_name:
            owner: FownEntry = part.fown  # type: ignore[attr-defined]
            if owner.pid:
                return Owner(owner.pid, owner.uid, owner.euid)
    return None


def _options(entry: FileEntry) -> SocketOptions | None:
    for part in (entry.isk, entry.usk, entry.psk, entry.nlsk):
        if part.HasField("opts"):
            opts = part.opts
            buffer_bytes = max(opts.so_sndbuf, opts.so_rcvbuf)
            return SocketOptions(opts.so_mark, opts.so_priority, buffer_bytes, opts.reuseaddr)
    return None


def _of_kind(entry: FileEntry, name: str) -> OpenFile:
    kind = _kind(entry.type)
    match kind:
        case "reg":
            reg = entry.reg
            _same_id(entry.id, reg.id, name)
            return RegularFile(
                id=entry.id,
                kind=kind,
                path=path_text(reg.name, name, "path of an open file"),
                mount=reg.mnt_id if reg.HasField("mnt_id") else NOT_RECORDED,
                flags=reg.flags,
                mode=reg.mode if reg.HasField("mode") else None,
                external=reg.ext,
            )
        case "pipe":
            _same_id(entry.id, entry.pipe.id, name)
            return Pipe(entry.id, kind, entry.pipe.pipe_id)
        case "inetsk":
            _same_id(entry.id, entry.isk.id, name)
            return _internet_socket(entry.id, entry.isk, name)
        case "unixsk":
            usk = entry.usk
            _same_id(entry.id, usk.id, name)
            return UnixSocket(
                id=entry.id,
                kind=kind,
                type=usk.type,
                state=usk.state,
                inode=usk.ino,
                peer=usk.peer,
                name=usk.name,
                folder=text(usk.name_dir, name),
                outside=usk.uflags != 0,
                mount=usk.mnt_id if usk.HasField("mnt_id") else NOT_RECORDED,
                deleted=usk.deleted,
                uid=usk.file_perms.uid if usk.HasField("file_perms") else None,
                gid=usk.file_perms.gid if usk.HasField("file_perms") else None,
                backlog=usk.backlog,
            )
        case "ns":
            return NamespaceFile(entry.id, kind, entry.nsf.ns_id)
        case "netlinksk":
            nlsk = entry.nlsk
            sends = bool(nlsk.dst_group or nlsk.dst_portid)
            return NetlinkSocket(entry.id, kind, nlsk.protocol, any(nlsk.groups), sends)
        case "timerfd":
            return TimerDescriptor(entry.id, kind, entry.tfd.clockid)
        case "inotify" | "fanotify":
            handles = [watch.f_handle for watch in entry.ify.wd] + [mark.ie.f_handle for mark in entry.ffy.mark]
            return Watcher(entry.id, kind, tuple(_watch(each, name) for each in handles if each.path))
        case "tty":
            return Terminal(entry.id, kind, entry.tty.tty_info_id)
    return OpenFile(entry.id, kind)


def _watch(handle: FhEntry, name: str) -> Watch:
    path = path_text(handle.path, name, "path of a watched file")
    return Watch(path, handle.mnt_id if handle.HasField("mnt_id") else NOT_RECORDED)


def _same_id(outer: int, inner: int, name: str) -> None:
    if outer != inner:
        raise damaged(name, f"has file {outer}, whose own part says {inner}")


def _internet_socket(number: int, entry: InetSkEntry, name: str) -> InternetSocket:
    if entry.family not in (socket.AF_INET, socket.AF_INET6):
        raise damaged(name, f"has an internet socket of the unknown family {entry.family}")
    if max(entry.src_port, entry.dst_port) > 65_535:
        raise damaged(name, "has an internet socket with a port above 65535")
    return InternetSocket(
        id=number,
        kind="inetsk",
        family="ipv4" if entry.family == socket.AF_INET else "ipv6",
        type=entry.type,
        protocol=entry.proto,
        state=entry.state,
        source=_address(entry.src_addr, name),
        source_port=entry.src_port,
        destination=_address(entry.dst_addr, name),
        destination_port=entry.dst_port,
        inode=entry.ino,
    )


def _address(words: Sequence[int], name: str) -> str:
    """CRIU keeps the address as the node's 32-bit words in memory order: one for IPv4, four for IPv6."""
    if len(words) == 1:
        return socket.inet_ntop(socket.AF_INET, struct.pack("<I", words[0]))
    if len(words) == 4:
        return socket.inet_ntop(socket.AF_INET6, struct.pack("<4I", *words))
    raise damaged(name, f"has an internet address of {len(words)} words")
