"""Names an open file of the dump as a user would: by path, address, or what it is."""

from __future__ import annotations

import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.criu.criu_pb2 import FileEntry, MemfdInodeEntry
from shared.criu.images import ImageDirectory, Kind, text
from shared.criu.open_files import InternetSocket, OpenFile, Pipe, RegularFile, UnixSocket

TCP_STATES: Final = {
    1: "established",
    2: "connecting",
    3: "accepting",
    4: "closing",
    5: "closing",
    6: "closing",
    7: "closed",
    8: "closed by the peer",
    9: "closing",
    10: "listening",
    11: "closing",
    12: "accepting",
}
"""linux/tcp_states.h, in words: SYN_SENT connecting, CLOSE_WAIT closed by the peer."""
_UNIX_STREAM_LISTENING: Final = 10
_UNIX_CONNECTED: Final = 1


@dataclass(frozen=True, slots=True)
class Named:
    kind: str
    name: str


def name_files(images: ImageDirectory, files: tuple[OpenFile, ...]) -> Mapping[tuple[str, int], Named]:
    """By kind and id, as descriptors refer to them."""
    paths = {file.id: file.path for file in files if isinstance(file, RegularFile)}
    special = _special(images, paths)
    return {(file.kind, file.id): special.get((file.kind, file.id)) or _named(file) for file in files}


def endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def protocol(file: InternetSocket) -> str:
    known = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_UDPLITE: "udplite"}
    return known.get(file.protocol, "raw") + ("6" if file.family == "ipv6" else "")


def internet_state(file: InternetSocket) -> str:
    if file.protocol == socket.IPPROTO_TCP:
        return TCP_STATES.get(file.state, f"state {file.state}")
    return "connected" if file.destination_port else "bound"


def unix_state(file: UnixSocket) -> str:
    if file.state == _UNIX_STREAM_LISTENING:
        return "listening"
    return "connected" if file.peer or file.state == _UNIX_CONNECTED else "bound"


def unix_name(file: UnixSocket) -> str:
    """A path, ``@name`` for an abstract name, or its inode."""
    if not file.name.strip(b"\0"):
        return f"socket:[{file.inode}]"
    shown = file.name.rstrip(b"\0").decode(errors="backslashreplace")
    return "@" + shown[1:] if shown.startswith("\0") else shown


def _named(file: OpenFile) -> Named:
    match file:
        case RegularFile():
            return Named(_file_kind(file.mode), file.path)
        case Pipe():
            return Named("pipe", f"pipe:[{file.pipe_id}]")
        case InternetSocket():
            local = endpoint(file.source, file.source_port)
            remote = f" to {endpoint(file.destination, file.destination_port)}" if file.destination_port else ""
            return Named(protocol(file), f"{local}{remote} {internet_state(file)}")
        case UnixSocket():
            return Named("unix", f"{unix_name(file)} {unix_state(file)}")
    plain = {"eventpoll": "epoll", "netlinksk": "netlink", "packetsk": "packet", "ns": "namespace"}
    kind = plain.get(file.kind, file.kind)
    return Named(kind, kind)


def _file_kind(mode: int | None) -> str:
    if mode is None:
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "file"


def _special(images: ImageDirectory, paths: Mapping[int, str]) -> dict[tuple[str, int], Named]:
    """What has its name elsewhere: a fifo's and a terminal's path, a memfd's own name."""
    memfds = {}
    if Kind.MEMFD.file() in images:
        name = images.path(Kind.MEMFD.file())
        memfds = {entry.inode_id: text(entry.name, name) for entry in images.entries(Kind.MEMFD, MemfdInodeEntry)}
    found: dict[tuple[str, int], Named] = {}
    for entry in images.entries(Kind.FILES, FileEntry):
        if entry.HasField("fifo"):
            found["fifo", entry.id] = Named("fifo", paths.get(entry.fifo.regf_id, "fifo"))
        elif entry.HasField("tty"):
            found["tty", entry.id] = Named("tty", paths.get(entry.tty.regf_id, "terminal"))
        elif entry.HasField("memfd"):
            found["memfd", entry.id] = Named("memfd", f"memfd:{memfds.get(entry.memfd.inode_id, '')}")
    return found
