"""Locks and leases of files (filelocks.img): each process takes its own again, on its descriptors.

Source: criu/file-lock.c (restore_file_lock): CRIU takes a lease as the file's owner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import FileEntry, FileLockEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, text
from shared.errors import Refused
from shared.judge.regular_files import held
from shared.judge.rules import Fields, Rules, bounded, free
from shared.judge.writing import ImageFile, image_file
from shared.spec import RuntimeSpec

_LEASE: Final = 8
_STYLES: Final = (1, 2, 4, _LEASE)
"""FL_POSIX, FL_FLOCK, FL_OFD, FL_LEASE (criu/include/file-lock.h)."""
_TYPES: Final = (0, 1, 2)
"""F_RDLCK, F_WRLCK, F_UNLCK."""
_BREAKING: Final = 4
"""LEASE_BREAKING."""
_RANGE: Final = free("the process may lock any part of a file that it has open")

FIELDS: Final[Fields] = {
    "FileLockEntry": {
        "flag": bounded("a lock of fcntl(2), of flock(2), of an open file, or a lease", lambda flag: flag in _STYLES),
        "type": bounded("for reading, writing or nothing; a lease may be breaking"),
        "pid": bounded("a living process of the dump"),
        "fd": bounded("a descriptor of that process"),
        "start": _RANGE,
        "len": _RANGE,
    },
}


def check_locks(images: ImageDirectory, dump: Dump) -> None:
    """Raises CheckpointInvalid("ImageDamaged") for a lock of no process or descriptor, or of an unknown type."""
    if not _locks(images):
        return
    numbers = {(table, descriptor.fd) for table, descriptor in held(images, dump)}
    tables = {task.pid: task.ids.files for task in dump.tasks if task.alive}
    for lock in _locks(images):
        name = images.path(Kind.FILE_LOCKS.file())
        if (tables.get(lock.pid), lock.fd) not in numbers:
            raise damaged(name, f"has a lock on descriptor {lock.fd} of process {lock.pid}, which is not there")
        if lock.type & ~(_BREAKING if lock.flag == _LEASE else 0) not in _TYPES:
            raise damaged(name, f"has a lock of the unknown type {lock.type}")


def lock_refusals(images: ImageDirectory, dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """FileExceeds for a lease on a volume's file: whoever opens it waits, so it takes its owner, or CAP_LEASE."""
    tables = {task.pid: task.ids.files for task in dump.tasks if task.alive}
    leases = {(tables.get(lock.pid), lock.fd) for lock in _locks(images) if lock.flag == _LEASE}
    if not leases or "CAP_LEASE" in live.capabilities.bounding:
        return
    files = {each.id for table, each in held(images, dump) if (table, each.fd) in leases}
    volumes = {mount.id for mount in dump.mounts if mount.external is not None}
    for entry in images.entries(Kind.FILES, FileEntry):
        if entry.id in files and entry.reg.mnt_id in volumes:
            yield Refused(
                "FileExceeds",
                f"the checkpoint has a lease on {text(entry.reg.name, Kind.FILES.file())} of a volume, which takes "
                "CAP_LEASE and the pod does not grant it; add it to the container's capabilities if that is meant",
            )


def lock_images(images: ImageDirectory, rules: Rules) -> Iterator[ImageFile]:
    """filelocks.img. Raises Refused("FieldExceeds")."""
    written = []
    for lock in _locks(images):
        made = FileLockEntry()
        made.CopyFrom(lock)
        rules.apply(made, Kind.FILE_LOCKS.file())
        written.append(made)
    if written:
        yield image_file(Kind.FILE_LOCKS, written)


def _locks(images: ImageDirectory) -> list[FileLockEntry]:
    return images.entries(Kind.FILE_LOCKS, FileLockEntry) if Kind.FILE_LOCKS.file() in images else []
