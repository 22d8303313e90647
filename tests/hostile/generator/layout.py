"""Every image of CRIU's taken apart into messages and the raw bytes between them, and put together again.

The readers under test are not used: their view of an image is what is tested. Sources: checkpoint-restore/criu
criu/image-desc.c (names), criu/pipes.c, sk-queue.c, sk-tcp.c, ipc_ns.c, files-reg.c, bpfmap.c (what follows a message).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from shared.criu import criu_pb2 as pb
from shared.criu.magic import MAGIC

Part = Message | bytes
"""One message, or bytes that are none."""

_U32: Final = struct.Struct("<I")
_COMMON: Final = 0x54564319
_SERVICE: Final = 0x55105940
_SERVICE_MAGIC: Final = {"irmap-cache.img": 0x57004059, "stats-restore": 0x57093306}

MESSAGES: Final[dict[str, type[Message]]] = {
    "apparmor.img": pb.ApparmorEntry,
    "autofs-%.img": pb.AutofsEntry,
    "binfmt-misc.img": pb.BinfmtMiscEntry,
    "bpfmap-data.img": pb.BpfmapDataEntry,
    "bpfmap-file.img": pb.BpfmapFileEntry,
    "cgroup.img": pb.CgroupEntry,
    "core-%.img": pb.CoreEntry,
    "cpuinfo.img": pb.CpuinfoEntry,
    "creds-%.img": pb.CredsEntry,
    "eventfd.img": pb.EventfdFileEntry,
    "eventpoll-tfd.img": pb.EventpollTfdEntry,
    "eventpoll.img": pb.EventpollFileEntry,
    "ext-files.img": pb.ExtFileEntry,
    "fanotify-mark.img": pb.FanotifyMarkEntry,
    "fanotify.img": pb.FanotifyFileEntry,
    "fdinfo-%.img": pb.FdinfoEntry,
    "fifo-data.img": pb.PipeDataEntry,
    "fifo.img": pb.FifoEntry,
    "filelocks.img": pb.FileLockEntry,
    "files.img": pb.FileEntry,
    "fs-%.img": pb.FsEntry,
    "ghost-file-%.img": pb.GhostFileEntry,
    "ids-%.img": pb.TaskKobjIdsEntry,
    "inetsk.img": pb.InetSkEntry,
    "inotify-wd.img": pb.InotifyWdEntry,
    "inotify.img": pb.InotifyFileEntry,
    "inventory.img": pb.InventoryEntry,
    "ipcns-msg-%.img": pb.IpcMsgEntry,
    "ipcns-sem-%.img": pb.IpcSemEntry,
    "ipcns-shm-%.img": pb.IpcShmEntry,
    "ipcns-var-%.img": pb.IpcVarEntry,
    "irmap-cache.img": pb.IrmapCacheEntry,
    "itimers-%.img": pb.ItimerEntry,
    "memfd.img": pb.MemfdInodeEntry,
    "mm-%.img": pb.MmEntry,
    "mountpoints-%.img": pb.MntEntry,
    "netdev-%.img": pb.NetDeviceEntry,
    "netlinksk.img": pb.NetlinkSkEntry,
    "netns-%.img": pb.NetnsEntry,
    "ns-files.img": pb.NsFileEntry,
    "packetsk.img": pb.PacketSockEntry,
    "pagemap-%.img": pb.PagemapEntry,
    "pagemap-shmem-%.img": pb.PagemapEntry,
    "pidfd.img": pb.PidfdEntry,
    "pidns-%.img": pb.PidnsEntry,
    "pipes-data.img": pb.PipeDataEntry,
    "pipes.img": pb.PipeEntry,
    "posix-timers-%.img": pb.PosixTimerEntry,
    "pstree.img": pb.PstreeEntry,
    "reg-files.img": pb.RegFileEntry,
    "remap-fpath.img": pb.RemapFilePathEntry,
    "rlimit-%.img": pb.RlimitEntry,
    "seccomp.img": pb.SeccompEntry,
    "sigacts-%.img": pb.SaEntry,
    "signal-p-%.img": pb.SiginfoEntry,
    "signal-s-%.img": pb.SiginfoEntry,
    "signalfd.img": pb.SignalfdEntry,
    "sk-queues.img": pb.SkPacketEntry,
    "stats-restore": pb.StatsEntry,
    "tcp-stream-%.img": pb.TcpStreamEntry,
    "timens-%.img": pb.TimensEntry,
    "timerfd.img": pb.TimerfdEntry,
    "tty-data.img": pb.TtyDataEntry,
    "tty-info.img": pb.TtyInfoEntry,
    "tty.img": pb.TtyFileEntry,
    "tunfile.img": pb.TunfileEntry,
    "unixsk.img": pb.UnixSkEntry,
    "userns-%.img": pb.UsernsEntry,
    "utsns-%.img": pb.UtsnsEntry,
    "vmas-%.img": pb.VmaEntry,
}
"""By an image's name, ``%`` for a number: what its messages are."""

_NUMBER: Final = re.compile(r"(?<=-)[0-9a-f]+(?=\.img$)")


def pattern_of(name: str) -> str | None:
    """The key of ``MESSAGES`` for an image of this name; None for files that are no messages."""
    pattern = name if name in MESSAGES else _NUMBER.sub("%", name)
    return pattern if pattern in MESSAGES else None


def head_of(pattern: str) -> bytes:
    """What an image starts with."""
    if pattern in _SERVICE_MAGIC:
        return _U32.pack(_SERVICE) + _U32.pack(_SERVICE_MAGIC[pattern])
    own = _U32.pack(MAGIC[pattern])
    return own if pattern == "inventory.img" else _U32.pack(_COMMON) + own


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


_RAW_BYTES: Final[dict[type[Message], Callable[[Any], int | None]]] = {
    pb.PipeDataEntry: lambda entry: entry.handle_bytes,
    pb.SkPacketEntry: lambda entry: entry.length,
    pb.BpfmapDataEntry: lambda entry: entry.keys_bytes + entry.values_bytes,
    pb.IpcMsg: lambda entry: _padded(entry.msize, 8),
    pb.IpcSemEntry: lambda entry: _padded(2 * entry.nsems, 8),
    pb.IpcShmEntry: lambda entry: 0 if entry.in_pagemaps else _padded(entry.size, 4),
    pb.TcpStreamEntry: lambda entry: None,
    pb.GhostFileEntry: lambda entry: 0 if entry.chunks else None,
    pb.GhostChunkEntry: lambda entry: entry.len,
}
"""How many raw bytes follow a message; None: all that the file still has."""


def parse(name: str, content: bytes) -> list[Part]:
    """The parts behind the magic numbers, as far as they can be told; what is left is one raw part at the end."""
    pattern = pattern_of(name)
    assert pattern is not None, name
    offset = len(head_of(pattern))
    parts: list[Part] = []
    queued = 0
    while offset < len(content):
        message, queued = _next(pattern, parts, queued)
        (size,) = _U32.unpack_from(content, offset) if offset + 4 <= len(content) else (-1,)
        piece = content[offset + 4 : offset + 4 + size] if size >= 0 else b""
        try:
            entry = message.FromString(piece) if len(piece) == size else None
        except DecodeError:
            entry = None
        if entry is None:
            parts.append(content[offset:])
            break
        parts.append(entry)
        offset += 4 + size
        if isinstance(entry, pb.IpcMsgEntry):
            queued = entry.qnum
        raw = _RAW_BYTES.get(message, lambda entry: 0)(entry)
        end = len(content) if raw is None else min(len(content), offset + raw)
        if end > offset:
            parts.append(content[offset:end])
            offset = end
    return parts


def _next(pattern: str, before: Sequence[Part], queued: int) -> tuple[type[Message], int]:
    """Which message comes next, and how many letters of a queue are still to come behind it."""
    if not before and pattern in ("pagemap-%.img", "pagemap-shmem-%.img"):
        return pb.PagemapHead, 0
    if before and pattern == "ghost-file-%.img":
        return pb.GhostChunkEntry, 0
    if queued:
        return pb.IpcMsg, queued - 1
    return MESSAGES[pattern], 0


def join(name: str, parts: Sequence[Part]) -> bytes:
    """The image with these parts; bytes that are a message already are given as ``framed`` made them."""
    pattern = pattern_of(name)
    assert pattern is not None, name
    pieces = [part if isinstance(part, bytes) else framed(part.SerializePartialToString()) for part in parts]
    return b"".join([head_of(pattern), *pieces])


def framed(serialized: bytes) -> bytes:
    return _U32.pack(len(serialized)) + serialized
