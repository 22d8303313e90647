"""Deleted files that are still open, which CRIU makes again, opens and removes (criu/files-reg.c).

It makes them as root, before it changes its root directory, beside where they were; the file's old name is there for a
moment as well. Directories on the way that are gone are made and removed too. On a volume that is somebody else's
place: what may be made there is what some user of the container could make (nri_plugin/restore/cover.py looks).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import GhostChunkEntry, GhostFileEntry, RemapFilePathEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, join
from shared.criu.open_files import RegularFile
from shared.criu.raw_content import after_first, content_start
from shared.errors import Refused
from shared.judge.open_flags import TMPFILE
from shared.judge.paths import is_bind, is_read_only, where
from shared.judge.regular_files import REGULAR, of_kind
from shared.judge.rules import Fields, Rules, bounded, default, free
from shared.judge.writing import ImageFile, Raw, image_file
from shared.spec import RuntimeSpec

LINKED, GHOST, PROCESS = 0, 1, 2
"""remap-file-path.proto, remap_type: LINKED, GHOST, PROCFS."""
_NUMBER_MAX: Final = (1 << 31) - 1
_PIDS_MAX: Final = 1 << 22
"""linux/threads.h, PID_MAX_LIMIT."""
_KINDS: Final = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO})
_U32: Final = struct.Struct("<I")
_COMPARED: Final = free("CRIU only compares it with what a watch (inotify(7)) says of its file")

FIELDS: Final[Fields] = {
    "RemapFilePathEntry": {
        "orig_id": bounded("a regular file, once"),
        "remap_id": bounded("the number of the deleted file's image, or of a process that has ended"),
        "remap_type": bounded("a deleted file or an ended process", lambda kind: kind in (GHOST, PROCESS)),
    },
    "GhostFileEntry": {
        "uid": free("a deleted file that no path leads to; SetuidExceeds bounds programs"),
        "gid": free("a deleted file that no path leads to; SetuidExceeds bounds programs"),
        "mode": bounded(
            "a regular file, a directory, a FIFO, or a device, which DeviceExceeds bounds",
            lambda mode: stat.S_IFMT(mode) in _KINDS and mode < 1 << 16,
        ),
        "dev": _COMPARED,
        "ino": _COMPARED,
        "rdev": bounded("a device that the pod gives the container (devices.py)"),
        "atim": free("any process may set the times of its own file"),
        "mtim": free("any process may set the times of its own file"),
        "chunks": bounded("whether the content has holes; a regular file's"),
        "size": bounded("the content lies within it"),
        "symlnk_target": default("CRIU would make a symbolic link; a checkpoint with a deleted one cannot be restored"),
    },
    "GhostChunkEntry": {
        "len": bounded("it follows in the image, and lies in the file"),
        "off": bounded("behind the chunk before"),
    },
}


def check_deleted_files(images: ImageDirectory, dump: Dump) -> None:
    """Raises CheckpointInvalid("ImageDamaged") for what CRIU would judge otherwise, crash on or spin over."""
    name = images.path(Kind.REMAP_FPATH.file())
    regular = {entry.id: entry.reg for entry in of_kind(images, REGULAR)}
    devices = {mount.id: mount.device for mount in dump.mounts}
    threads = {thread.tid for task in dump.tasks for thread in task.threads}
    remapped: set[int] = set()
    ghosts: dict[int, int] = {}
    places: dict[int, int | None] = {}
    for entry in remaps(images):
        file = regular.get(entry.orig_id)
        if file is None or entry.orig_id in remapped:
            raise damaged(name, f"has the file {entry.orig_id} twice, or files.img does not have it")
        remapped.add(entry.orig_id)
        if entry.remap_type == PROCESS:
            if not 0 < entry.remap_id < _PIDS_MAX or entry.remap_id in threads:
                raise damaged(name, f"has {entry.remap_id} for a process that has ended")
        elif entry.remap_type == GHOST:
            if entry.remap_id > _NUMBER_MAX:
                raise damaged(name, f"has {entry.remap_id:#x} for the number of a deleted file")
            if places.setdefault(entry.remap_id, devices.get(file.mnt_id)) != devices.get(file.mnt_id):
                raise damaged(name, f"has the deleted file {entry.remap_id} on two file systems")
            if entry.remap_id not in ghosts:
                ghosts[entry.remap_id] = ghost(images, entry.remap_id).mode
                _check_ghost(images, entry.remap_id)
    kinds = {entry.orig_id: ghosts[entry.remap_id] for entry in remaps(images) if entry.remap_type == GHOST}
    for number, file in regular.items():
        if file.flags & TMPFILE and not stat.S_ISREG(kinds.get(number, 0)):
            raise damaged(images.path(Kind.FILES.file()), f"has file {number} without a name, and no content of it")
        if number in kinds and stat.S_IFMT(kinds[number]) != stat.S_IFMT(file.mode):
            raise damaged(images.path(Kind.FILES.file()), f"has file {number} of another kind than its deleted file")


def _check_ghost(images: ImageDirectory, number: int) -> None:
    """The times are there together, and the content is whole: CRIU waits for ever for bytes that do not come."""
    entry = ghost(images, number)
    name = images.path(Kind.GHOST_FILE.file(f"{number:x}"))
    if entry.HasField("atim") != entry.HasField("mtim"):
        raise damaged(name, "has one time of its file and not the other")
    if stat.S_ISLNK(entry.mode):
        raise Refused(
            "FileExceeds",
            "the checkpoint has a symbolic link open that was deleted, which cannot be restored; take a new checkpoint "
            "when it is closed",
        )
    if not stat.S_ISREG(entry.mode):
        if entry.chunks or images.files.size(name) != content_start(images, Kind.GHOST_FILE, f"{number:x}"):
            raise damaged(name, "has content that its file cannot have")
    elif entry.chunks:
        end = 0
        for chunk, _ in _chunks(images, number):
            if not entry.HasField("size") or chunk.off < end or chunk.off + chunk.len > entry.size:
                raise damaged(name, "has content outside of its file, or out of order")
            end = chunk.off + chunk.len


def deleted_file_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """FileExceeds for a deleted file on a volume that the pod has read-only: CRIU would make the volume writable."""
    asked = {where(mount.destination): mount for mount in live.mounts if is_bind(mount.type, mount.options)}
    read_only = {
        mount.id
        for mount in dump.mounts
        if mount.external is not None and (volume := asked.get(where(mount.external))) and is_read_only(volume.options)
    }
    for file in dump.files:
        if isinstance(file, RegularFile) and file.id in dump.remapped and file.mount in read_only:
            yield Refused(
                "FileExceeds",
                f"the checkpoint has {file.path} open, which was deleted from a volume that the pod has read-only, so "
                "CRIU cannot make it again; take a new checkpoint when it is closed, or restart what has it open first",
            )


def deleted_file_images(images: ImageDirectory, rules: Rules) -> Iterator[ImageFile]:
    """remap-fpath.img, and an image for each deleted file. Raises Refused("FieldExceeds")."""
    written = []
    numbers: dict[int, None] = {}
    for entry in remaps(images):
        made = RemapFilePathEntry()
        made.CopyFrom(entry)
        rules.apply(made, Kind.REMAP_FPATH.file())
        written.append(made)
        if made.remap_type == GHOST:
            numbers[made.remap_id] = None
    if written:
        yield image_file(Kind.REMAP_FPATH, written)
    for number in numbers:
        yield _ghost_image(images, number, rules)


def _ghost_image(images: ImageDirectory, number: int, rules: Rules) -> ImageFile:
    name = Kind.GHOST_FILE.file(f"{number:x}")
    entry = ghost(images, number)
    rules.apply(entry, name)
    pieces: list[bytes | Raw] = [join(Kind.GHOST_FILE, [entry])]
    if entry.chunks:
        for chunk, offset in _chunks(images, number):
            rules.apply(chunk, name)
            content = chunk.SerializeToString(deterministic=True)
            pieces.append(_U32.pack(len(content)) + content)
            if chunk.len:
                pieces.append(Raw(name, offset, chunk.len))
    else:
        start = content_start(images, Kind.GHOST_FILE, f"{number:x}")
        size = images.files.size(images.path(name)) - start
        if size:
            pieces.append(Raw(name, start, size))
    return ImageFile(name, pieces)


def remaps(images: ImageDirectory) -> list[RemapFilePathEntry]:
    return images.entries(Kind.REMAP_FPATH, RemapFilePathEntry) if Kind.REMAP_FPATH.file() in images else []


def ghost(images: ImageDirectory, number: int) -> GhostFileEntry:
    return images.first(Kind.GHOST_FILE, GhostFileEntry, f"{number:x}")


def _chunks(images: ImageDirectory, number: int) -> Iterator[tuple[GhostChunkEntry, int]]:
    return after_first(images, Kind.GHOST_FILE, f"{number:x}", GhostChunkEntry, lambda chunk: chunk.len)
