"""Entries of files.img, descriptors, and files opened by their path.

Sources: criu/files.c (collect_one_file, prepare_fd_pid), criu/files-reg.c (open_path, validate_file),
criu/mount.c (mntns_get_root_by_mnt_id), images/{fdinfo,regfile,ext-file}.proto.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final

from shared.criu.criu_pb2 import FdinfoEntry, FileEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, text
from shared.errors import CheckpointInvalid
from shared.judge.open_flags import KINDS_OF_FILE, PATH, TMPFILE, flags_rule, id_rule, owner_rule
from shared.judge.places import foreign
from shared.judge.rules import Fields, bounded, default, derived, free

PARTS: Final = {
    1: "reg",
    2: "pipe",
    3: "fifo",
    4: "isk",
    5: "usk",
    6: "efd",
    7: "epfd",
    8: "ify",
    9: "sgfd",
    10: "psk",
    11: "tty",
    12: "ffy",
    13: "nlsk",
    14: "nsf",
    15: "tunf",
    16: "ext",
    17: "tfd",
    18: "memfd",
    19: "bpf",
    20: "pidfd",
}
"""The part of a FileEntry by its type (fdinfo.proto, fd_types; criu/files.c, collect_one_file)."""
REGULAR, PIPE, FIFO, EPOLL, INOTIFY, TERMINAL, FANOTIFY, MEMORY = 1, 2, 3, 7, 8, 11, 12, 18
_DESCRIPTORS_MAX: Final = 1 << 20
"""The kernel's own limit where nobody raised fs.nr_open; the table takes memory up to the highest number."""
_PART: Final = bounded("the only part, and the one that the type names")
_EXTERNAL: Final = default("CRIU would have the file from outside the container")

FIELDS: Final[Fields] = {
    "FileEntry": {
        "type": bounded("a kind of file that CRIU has", lambda kind: kind in PARTS),
        "id": id_rule(),
        **dict.fromkeys(PARTS.values(), _PART),
        "ext": _EXTERNAL,
        "bpf": default("BPF maps are not restored"),
    },
    "FdinfoEntry": {
        "id": bounded("a file of files.img"),
        "flags": bounded("FD_CLOEXEC or nothing", lambda flags: flags in (0, 1)),
        "type": bounded("the kind that the file has"),
        "fd": bounded("fs.nr_open bounds it, and each number is there once", lambda fd: fd < _DESCRIPTORS_MAX),
        "xattr_security_selinux": default("CRIU would write it to the file as root"),
    },
    "RegFileEntry": {
        "id": id_rule(),
        "flags": flags_rule("how the file is opened", PATH | TMPFILE),
        "pos": free("the process may move there itself"),
        "fown": owner_rule(),
        "name": bounded("a path on the mount that it names, judged by itself"),
        "mnt_id": bounded("a mount of the dump"),
        "size": free("CRIU only compares it with the file that it opened"),
        "ext": default("CRIU would have the file from whom it was called by"),
        "mode": bounded(
            "CRIU compares it with the file that it opened; a terminal gets it",
            lambda mode: stat.S_IFMT(mode) in KINDS_OF_FILE and mode < 1 << 16,
        ),
        "build_id": free("CRIU only compares it with the file that it opened"),
        "checksum": derived("no CRIU writes or reads it"),
        "checksum_config": derived("no CRIU writes or reads it"),
        "checksum_parameter": derived("no CRIU writes or reads it"),
    },
    "ExtFileEntry": {"id": _EXTERNAL, "fown": _EXTERNAL},
}


def check_entries(images: ImageDirectory, dump: Dump) -> None:
    """Raises CheckpointInvalid for what CRIU would read otherwise than the rules, or crash on.

    ImageDamaged: another part than the type names (CRIU reads that one alone), a number twice (what a socket holds
    names a file by its number alone), an owner of signals that the dump does not have. ImagePath: see ``check_path``.
    Raises Refused("FileExceeds") for a file on an unknown mount, on which CRIU ends itself (lookup_nsid_by_mnt_id).
    """
    name = images.path(Kind.FILES.file())
    mounts = {mount.id for mount in dump.mounts}
    owners = {task.pid for task in dump.tasks} | {task.pgid for task in dump.tasks}
    owners |= {thread.tid for task in dump.tasks for thread in task.threads}
    numbers: set[int] = set()
    for entry in images.entries(Kind.FILES, FileEntry):
        wanted = PARTS.get(entry.type)
        parts = [field.name for field, _ in entry.ListFields() if field.message_type is not None]
        if parts != [wanted]:
            raise damaged(name, f"has file {entry.id} with the parts {', '.join(parts) or 'none'} instead of {wanted}")
        part: Any = getattr(entry, parts[0])
        if entry.id in numbers or part.id != entry.id:
            raise damaged(name, f"has the number {entry.id} for two files, or {part.id} in a part of file {entry.id}")
        numbers.add(entry.id)
        if parts[0] == "reg":
            check_path(part.name, name)
            if not part.HasField("mnt_id") or part.mnt_id not in mounts:
                raise foreign(f"{text(part.name, name)}, a file on a mount that the dump does not have,")
        if "fown" in part.DESCRIPTOR.fields_by_name and part.fown.pid and part.fown.pid not in owners:
            raise damaged(name, f"has the file {entry.id}, whose signals go to {part.fown.pid}, no process of the dump")


def check_path(path: bytes, image: str) -> None:
    """Raises CheckpointInvalid("ImagePath") for a path that the kernel never tells of an open file."""
    if path != b"/" and any(part in (b"", b".", b"..") for part in path.split(b"/")[1:]):
        raise CheckpointInvalid(
            "ImagePath", f"{image} has a path of an open file that the kernel would write otherwise: {path[:200]!r}"
        )


def check_descriptors(images: ImageDirectory, dump: Dump) -> None:
    """Raises CheckpointInvalid("ImageDamaged") for a descriptor whose file is of another kind, or missing."""
    kinds = {entry.id: entry.type for entry in images.entries(Kind.FILES, FileEntry)}
    for table in tables(dump):
        for entry in descriptors(images, table):
            if kinds.get(entry.id) != entry.type:
                name = images.path(Kind.FDINFO.file(table))
                raise damaged(name, f"has the descriptor {entry.fd} of a file that files.img does not have")


def of_kind(images: ImageDirectory, *kinds: int) -> list[FileEntry]:
    """Entries of these kinds, by their numbers; ``check_entries`` sees that each has the part of its kind."""
    return [entry for entry in images.entries(Kind.FILES, FileEntry) if entry.type in kinds]


def tables(dump: Dump) -> tuple[int, ...]:
    """The tables of descriptors that living tasks have; CRIU reads no other one."""
    return tuple(dict.fromkeys(task.ids.files for task in dump.tasks if task.alive))


def descriptors(images: ImageDirectory, table: int) -> Sequence[FdinfoEntry]:
    """One table's entries; one without an image is empty, as CRIU has it."""
    return images.entries(Kind.FDINFO, FdinfoEntry, table) if Kind.FDINFO.file(table) in images else ()


def held(images: ImageDirectory, dump: Dump) -> Iterator[tuple[int, FdinfoEntry]]:
    """Every descriptor, with its table."""
    for table in tables(dump):
        for entry in descriptors(images, table):
            yield table, entry
