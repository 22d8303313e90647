"""Which fields of CRIU's images came with which release: an older CRIU reads past them without a word.

Found by comparing images/*.proto of every release from 3.17 to 4.2. Fields whose loss changes nothing that a program
notices are not listed: InventoryEntry.plugins_entry, dump_criu_run_id and allow_uprobes, cgroups of threads
(ThreadCoreEntry.cg_set, CgControllerEntry.is_threaded: nothing is moved), TaskCoreEntry.stop_signo,
NetnsEntry.ipv4_sysctl (the network is the pod's), and kinds of files and processors that an older CRIU refuses itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from shared.criu.criu_pb2 import CoreEntry, FileEntry, MemfdInodeEntry
from shared.criu.images import ImageDirectory, Kind
from shared.criu.tasks import Task

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class NewField:
    """A field that CRIU before ``since`` ignores."""

    message: str
    field: str
    since: Version
    lost: str
    """What a restore by an older CRIU would be without."""
    usual: object = None
    """A value that a restore by an older CRIU gives too, beside 0 and nothing."""


NEW_FIELDS: Final = (
    NewField("IpOptsEntry", "pktinfo", (3, 18), "the option IP_PKTINFO of a socket"),
    NewField("CredsEntry", "no_new_privs", (3, 19), "no_new_privs, which keeps a process from gaining privileges"),
    NewField("TaskCoreEntry", "membarrier_registration_mask", (3, 19), "a registration for membarrier(2)"),
    NewField("MemfdInodeEntry", "mode", (3, 19), "the permissions of a memfd file", usual=0o100777),
    NewField("IpOptsEntry", "tos", (3, 19), "the type of service of a socket"),
    NewField("IpOptsEntry", "ttl", (4, 0), "the time to live of a socket's packets", usual=64),
    NewField("TcpOptsEntry", "nodelay", (4, 0), "the option TCP_NODELAY of a socket"),
    NewField("TcpOptsEntry", "cork", (4, 0), "the option TCP_CORK of a socket"),
    NewField("UserX86CetEntry", "cet", (4, 0), "shadow stacks"),
    NewField("CredsEntry", "cap_amb", (4, 1), "ambient capabilities"),
    NewField("ThreadInfoAarch64", "pac_keys", (4, 1), "keys for pointer authentication"),
    NewField("PagemapEntry", "nr_pages", (4, 2), "the pages of memory, whose count it does not know"),
)
_BY_MESSAGE: Final = {
    name: tuple(each for each in NEW_FIELDS if each.message == name) for name in {each.message for each in NEW_FIELDS}
}


def newer_than(images: ImageDirectory, tasks: tuple[Task, ...], version: Version, *, wide: bool) -> Iterator[str]:
    """What the dump has that CRIU ``version`` would ignore silently, once each: ``no_new_privs … (CRIU 3.19)``.

    ``wide``: Dump.wide_page_counts. A field that has the value it would have without is no loss.
    """
    used = _used(images, tasks, wide)
    for new in NEW_FIELDS:
        if version < new.since and new in used:
            yield f"{new.lost} (CRIU {new.since[0]}.{new.since[1]})"


def _used(images: ImageDirectory, tasks: tuple[Task, ...], wide: bool) -> set[NewField]:
    found: set[NewField] = set()
    for message in _messages(images, tasks):
        _look(message, found)
    if wide:
        found |= {new for new in NEW_FIELDS if new.message == "PagemapEntry"}
    return found


def _messages(images: ImageDirectory, tasks: tuple[Task, ...]) -> Iterator[Message]:
    for task in tasks:
        for thread in task.threads:
            core = images.one(Kind.CORE, CoreEntry, thread.tid)
            yield from (core.tc, core.thread_core.creds, core.ti_aarch64, core.thread_info.fpregs.xsave.cet)
    for file in images.entries(Kind.FILES, FileEntry):
        if file.HasField("isk"):
            yield from (file.isk.ip_opts, file.isk.tcp_opts)
    if Kind.MEMFD.file() in images:
        yield from images.entries(Kind.MEMFD, MemfdInodeEntry)


def _look(message: Message, found: set[NewField]) -> None:
    for new in _BY_MESSAGE.get(message.DESCRIPTOR.name, ()):
        value = getattr(message, new.field)
        if isinstance(value, Message):
            used = message.HasField(new.field)
        elif message.DESCRIPTOR.fields_by_name[new.field].is_repeated:
            used = any(value)
        else:
            used = bool(value) and value != new.usual
        if used:
            found.add(new)
