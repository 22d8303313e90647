"""Watches of files (inotify(7), fanotify(7)), which CRIU sets as root.

A watch's file is found by its path, looked up in the container, or by a file handle, which reaches every file of a file
system, those of the node included (criu/fsnotify.c, get_mark_path; open_by_handle_at(2)). So a handle is never written:
a watch has a path, judged as one of an open file, or is of a deleted file that CRIU makes again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import FanotifyMarkEntry, FhEntry, FileEntry, InotifyWdEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.errors import Refused
from shared.judge.deleted_files import GHOST, ghost, remaps
from shared.judge.open_flags import flags_rule, id_rule, owner_rule
from shared.judge.regular_files import FANOTIFY, INOTIFY, check_path, of_kind
from shared.judge.rules import Fields, bounded, default, derived, free

_INODE, _MOUNT = 1, 2
"""fsnotify.proto, MARK_TYPE."""
_U32_MAX: Final = (1 << 32) - 1
_WATCHES_MAX: Final = (1 << 31) - 1
_COMPARED: Final = free("CRIU only looks for a deleted file that has it, which wins over the path")
_HANDLE: Final = derived("CRIU would open what it names anywhere on the file system; a path is written instead")
_PRIVILEGED: Final = free("a container that has CAP_SYS_ADMIN, without which it is refused, may set that itself")

FIELDS: Final[Fields] = {
    "FhEntry": {
        "handle_bytes": _HANDLE,
        "type": _HANDLE,
        "handle": _HANDLE,
        "path": bounded("a path on the mount that it names, judged as one of an open file"),
        "mnt_id": bounded("a mount of the dump; none is the root"),
    },
    "InotifyWdEntry": {
        "id": derived("only an image of its own, which is not written, needs it"),
        "i_ino": _COMPARED,
        "mask": free("CRIU takes events alone (IN_ALL_EVENTS), which the process may ask for itself"),
        "ignored_mask": derived("CRIU does not read it"),
        "s_dev": _COMPARED,
        "wd": bounded("the watch's number, once in its file", lambda number: 0 < number <= _WATCHES_MAX),
        "f_handle": bounded("with a path, or of a deleted file"),
    },
    "InotifyFileEntry": {
        "id": id_rule(),
        "flags": bounded("IN_NONBLOCK and IN_CLOEXEC", lambda flags: not flags & ~(0o4000 | 0o2000000)),
        "fown": owner_rule(),
        "wd": bounded("InotifyWdEntry has rules of its own"),
    },
    "FanotifyInodeMarkEntry": {
        "i_ino": _COMPARED,
        "f_handle": bounded("with a path, or of a deleted file"),
    },
    "FanotifyMountMarkEntry": {
        "mnt_id": bounded("a mount of the dump"),
        "path": default("CRIU would watch that path of the node"),
    },
    "FanotifyMarkEntry": {
        "id": derived("only an image of its own, which is not written, needs it"),
        "type": bounded("of a file or a mount", lambda kind: kind in (_INODE, _MOUNT)),
        "mflags": _PRIVILEGED,
        "mask": _PRIVILEGED,
        "ignored_mask": _PRIVILEGED,
        "s_dev": _COMPARED,
        "ie": bounded("there where the mark is of a file"),
        "me": bounded("there where the mark is of a mount"),
    },
    "FanotifyFileEntry": {
        "id": id_rule(),
        "flags": flags_rule("CRIU takes O_NONBLOCK and O_CLOEXEC of it"),
        "fown": owner_rule(),
        "faflags": _PRIVILEGED,
        "evflags": flags_rule("how files of events are opened"),
        "mark": bounded("FanotifyMarkEntry has rules of its own"),
    },
    "IrmapCacheEntry": dict.fromkeys(("dev", "inode", "path"), default("only a dump has that image")),
}


def check_watches(images: ImageDirectory, dump: Dump) -> None:
    """Raises CheckpointInvalid for what CRIU would crash on, and for watches of mounts that the dump does not have."""
    name = images.path(Kind.FILES.file())
    mounts = {mount.id for mount in dump.mounts}
    for entry in of_kind(images, INOTIFY, FANOTIFY):
        numbers = [watch.wd for watch in entry.ify.wd]
        if len(set(numbers)) != len(numbers):
            raise damaged(name, f"has a watch of the file {entry.id} twice")
        for mark in entry.ffy.mark:
            if mark.HasField("ie") != (mark.type == _INODE) or mark.HasField("me") != (mark.type == _MOUNT):
                raise damaged(name, f"has a watch of the file {entry.id} that is of another kind than it says")
            if mark.HasField("me") and mark.me.mnt_id not in mounts:
                raise damaged(name, f"has a watch of the file {entry.id} on a mount that the dump does not have")
        for _, handle in _handles(entry):
            if handle.HasField("path"):
                check_path(handle.path, name)
                if handle.HasField("mnt_id") and handle.mnt_id not in mounts:
                    raise damaged(name, f"has a watch of the file {entry.id} on a mount that the dump does not have")


def watch_refusals(images: ImageDirectory) -> Iterator[Refused]:
    """FileExceeds for a watch that CRIU would set by a file handle."""
    deleted = {
        (made.dev, made.ino & _U32_MAX)
        for entry in remaps(images)
        if entry.remap_type == GHOST
        for made in (ghost(images, entry.remap_id),)
    }
    for entry in of_kind(images, INOTIFY, FANOTIFY):
        for (device, inode), handle in _handles(entry):
            if not handle.path and (device, inode & _U32_MAX) not in deleted:
                yield Refused(
                    "FileExceeds",
                    "the checkpoint watches a file whose path CRIU could not find, and would open it by its number on "
                    "the file system, which may be any file of the node; take a new checkpoint when every watched file "
                    "still exists",
                )
                return


def _handles(entry: FileEntry) -> Iterator[tuple[tuple[int, int], FhEntry]]:
    watches: list[InotifyWdEntry] = list(entry.ify.wd)
    marks: list[FanotifyMarkEntry] = [mark for mark in entry.ffy.mark if mark.HasField("ie")]
    yield from (((watch.s_dev, watch.i_ino), watch.f_handle) for watch in watches)
    yield from (((mark.s_dev, mark.ie.i_ino), mark.ie.f_handle) for mark in marks)
