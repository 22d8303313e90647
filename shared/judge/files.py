"""Open files: every field of their entries has a rule here, and their images are written anew.

A file that no living process has, by a descriptor or in a packet on its way, is not written; except regular files and
files of memory, which CRIU opens for programs, directories and mappings as well, and Unix sockets, which others may
wait to be connected to. The old images of one kind of file each (reg-files.img, pipes.img …), which CRIU still reads,
are not written at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from shared.criu.criu_pb2 import FileEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.open_files import KINDS
from shared.errors import Refused
from shared.judge import (
    bpf_maps,
    deleted_files,
    event_files,
    file_locks,
    memory_files,
    open_flags,
    pipes,
    regular_files,
    terminals,
    watches,
)
from shared.judge.kernel_objects import NAMESPACE_FLAGS
from shared.judge.namespaces import restored_number
from shared.judge.open_files import privileged
from shared.judge.reachable import reachable
from shared.judge.rules import Fields, Rules
from shared.judge.socket_images import derive_socket
from shared.judge.writing import ImageFile, image_file
from shared.spec import RuntimeSpec

FIELDS: Final[Fields] = {
    **open_flags.FIELDS,
    **regular_files.FIELDS,
    **event_files.FIELDS,
    **memory_files.FIELDS,
    **pipes.FIELDS,
    **terminals.FIELDS,
    **deleted_files.FIELDS,
    **watches.FIELDS,
    **file_locks.FIELDS,
    **bpf_maps.FIELDS,
}
_ALWAYS_WRITTEN: Final = frozenset({"reg", "memfd", "unixsk"})


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """Raises CheckpointInvalid for images that contradict each other, and what CRIU would crash on or wait for.

    Yields FileExceeds for a watch that CRIU would set by a file handle.
    """
    regular_files.check_entries(images, dump)
    regular_files.check_descriptors(images, dump)
    event_files.check_epoll(images, dump)
    memory_files.check_memory_files(images)
    pipes.check_pipes(images)
    terminals.check_terminals(images, dump)
    deleted_files.check_deleted_files(images, dump)
    watches.check_watches(images, dump)
    file_locks.check_locks(images, dump)
    yield from watches.watch_refusals(images)


def refusals(images: ImageDirectory, dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """What the live pod does not allow, of fields that ``Dump`` does not have; open_files.py has the rest."""
    yield from event_files.epoll_refusals(images, live)
    yield from pipes.pipe_refusals(images, dump, live)
    yield from terminals.terminal_refusals(images, dump, live, privileged=privileged(live))
    yield from deleted_files.deleted_file_refusals(dump, live)
    yield from file_locks.lock_refusals(images, dump, live)


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """files.img, tables of descriptors, and all that belongs to open files. Raises Refused("FieldExceeds")."""
    found = reachable(dump)

    def written(entry: FileEntry) -> bool:
        kind = KINDS.get(entry.type, "")
        return kind in _ALWAYS_WRITTEN or (kind, entry.id) in found

    yield image_file(Kind.FILES, _entries(images, dump, written, rules))
    yield from _tables(images, dump, rules)
    yield from pipes.pipe_images(images, written, rules)
    yield from terminals.terminal_images(images, {number for kind, number in found if kind == "tty"}, rules)
    yield from memory_files.memory_file_images(images, rules)
    yield from deleted_files.deleted_file_images(images, rules)
    yield from file_locks.lock_images(images, rules)


def _entries(images: ImageDirectory, dump: Dump, written: Callable[[FileEntry], bool], rules: Rules) -> list[FileEntry]:
    made = []
    for entry in images.entries(Kind.FILES, FileEntry):
        if written(entry):
            copied = FileEntry()
            copied.CopyFrom(entry)
            rules.apply(copied, Kind.FILES.file())
            _forget_nobody(copied)
            derive_socket(copied)
            _derive_namespace(copied, dump)
            made.append(copied)
    return made


def _forget_nobody(entry: FileEntry) -> None:
    """Where nobody gets a file's signals, the rest of FownEntry but the signal says nothing (criu/files.c)."""
    part: Any = getattr(entry, regular_files.PARTS[entry.type])
    if "fown" in part.DESCRIPTOR.fields_by_name and not part.fown.pid:
        part.fown.uid = part.fown.euid = part.fown.pid_type = 0


def _derive_namespace(entry: FileEntry, dump: Dump) -> None:
    """CRIU opens a namespace by way of a process that is in it by the number that the ids images have (open_ns_fd)."""
    if entry.HasField("nsf"):
        kind = next((name for name, flag in NAMESPACE_FLAGS.items() if flag == entry.nsf.ns_cflag), None)
        if kind is not None and entry.nsf.ns_id == getattr(dump.root.ids, kind):
            entry.nsf.ns_id = restored_number(dump, kind)


def _tables(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    for table in regular_files.tables(dump):
        if Kind.FDINFO.file(table) not in images:
            continue
        name, entries = Kind.FDINFO.file(table), regular_files.descriptors(images, table)
        for entry in entries:
            rules.apply(entry, name)
        yield image_file(Kind.FDINFO, entries, table)
