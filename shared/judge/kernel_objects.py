"""Open namespaces, descriptors of processes and tun devices, and times of files.

CRIU opens a namespace by way of some process that is in it (criu/namespaces.c, open_ns_fd) and a process by its number
(criu/pidfd.c), so both must be of the dump: in a pod with hostPID the numbers are the node's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import FileEntry, NsFileEntry, PidfdEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.errors import Refused
from shared.judge.rules import Fields, bounded, default, field_refused, free

_OPEN_FLAGS: Final = 0o4000 | 0o100000 | 0o400000 | 0o2000000
"""O_NONBLOCK, O_LARGEFILE of x86-64 and of aarch64, O_CLOEXEC beside O_RDONLY (linux asm-generic/fcntl.h)."""
_PIDFD_FLAGS: Final = 0o4000
"""PIDFD_NONBLOCK; CRIU leaves out O_RDWR, and dumps no descriptor of a thread."""
NAMESPACE_FLAGS: Final = {
    "pid_ns": 0x20000000,
    "net_ns": 0x40000000,
    "ipc_ns": 0x08000000,
    "uts_ns": 0x04000000,
    "mnt_ns": 0x00020000,
    "user_ns": 0x10000000,
    "cgroup_ns": 0x02000000,
    "time_ns": 0x00000080,
}
"""CLONE_NEW… (linux/sched.h) by the field of TaskIds."""
_ENDED: Final = -1
"""PidfdEntry.nspid of a process that is no more."""
_TUN: Final = default("CRIU would make a network device; a checkpoint with a tun device cannot be restored")

FIELDS: Final[Fields] = {
    "NsFileEntry": {
        "id": bounded("it is the file's own number, which descriptors refer to"),
        "ns_id": bounded("a namespace that a process of the dump is in"),
        "ns_cflag": bounded("that namespace's kind"),
        "flags": bounded("a namespace is opened for reading", lambda flags: not flags & ~_OPEN_FLAGS),
    },
    "PidfdEntry": {
        "id": bounded("it is the file's own number, which descriptors refer to"),
        "ino": free("it tells descriptors of one ended process from those of another"),
        "flags": bounded("PIDFD_NONBLOCK or nothing", lambda flags: not flags & ~_PIDFD_FLAGS),
        "nspid": bounded("a process of the dump, or one that has ended"),
        "fown": free("it has rules of its own"),
    },
    "TunfileEntry": {"id": _TUN, "netdev": _TUN, "detached": _TUN, "ns_id": _TUN},
    "TunLinkEntry": {"flags": _TUN, "owner": _TUN, "group": _TUN, "vnethdr": _TUN, "sndbuf": _TUN},
    "Timeval": {
        "tv_sec": free("any process may set the times of its own file"),
        "tv_usec": free("any process may set the times of its own file"),
    },
}


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """FieldExceeds for what no process of the dump is, or is in."""
    image = Kind.FILES.file()
    kinds = {
        (number, flag)
        for task in dump.tasks
        for field, flag in NAMESPACE_FLAGS.items()
        if (number := getattr(task.ids, field))
    }
    pids = {task.pid for task in dump.tasks}
    held = {(each.kind, each.file) for each in dump.descriptors}
    for entry in images.entries(Kind.FILES, FileEntry):
        for part in ("nsf", "pidfd"):
            if entry.HasField(part) and getattr(entry, part).id != entry.id:
                yield field_refused(image, getattr(entry, part), "id", entry.id, "the file has another number")
        if entry.HasField("nsf"):
            yield from _namespace(entry.nsf, kinds, image)
        if entry.HasField("pidfd"):
            yield from _process(entry.pidfd, pids, ("pidfd", entry.id) in held, image)


def _namespace(entry: NsFileEntry, kinds: set[tuple[int, int]], image: str) -> Iterator[Refused]:
    if entry.ns_id not in {number for number, _ in kinds}:
        yield field_refused(image, entry, "ns_id", entry.ns_id, "no process of the dump is in that namespace")
    elif (entry.ns_id, entry.ns_cflag) not in kinds:
        yield field_refused(image, entry, "ns_cflag", entry.ns_cflag, "the namespace is of another kind")


def _process(entry: PidfdEntry, pids: set[int], held: bool, image: str) -> Iterator[Refused]:
    if entry.nspid != _ENDED and entry.nspid not in pids:
        yield field_refused(image, entry, "nspid", entry.nspid, "the dump has no such process")
    elif entry.nspid == _ENDED and not held:
        # CRIU hands such descriptors from one process to the next, and waits for all (criu/pidfd.c).
        yield field_refused(image, entry, "nspid", entry.nspid, "no process holds this descriptor")
