"""A CRIU dump as one set of facts: what a restore of it would create. Memory itself is never read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from google.protobuf.message import DecodeError

from shared.archive import CheckpointFiles
from shared.criu.criu_pb2 import FileLockEntry, GhostFileEntry, PagemapEntry, RemapFilePathEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind
from shared.criu.inventory import Inventory, read_inventory
from shared.criu.ipc import IpcObjects, read_ipc
from shared.criu.mounts import MountEntry, read_mounts
from shared.criu.namespaces import PodNamespaces, read_namespaces
from shared.criu.open_files import (
    Descriptor,
    InternetSocket,
    OpenFile,
    RegularFile,
    read_descriptors,
    read_files,
    read_terminals,
)
from shared.criu.seccomp_filters import SeccompFilter, read_filters
from shared.criu.socket_queues import QueuedPacket, read_packets
from shared.criu.tasks import Task, read_tasks

__all__ = ["Dump", "GhostFile", "SeccompFilter", "dump_of", "read_dump"]


_LINKED, _GHOST, _PROCFS = 0, 1, 2
"""remap-file-path.proto, remap_type: LINKED 0, GHOST 1, PROCFS 2."""
_SEGMENT: Final = re.compile(r"pagemap-shmem-([0-9]+)\.img")


@dataclass(frozen=True, slots=True)
class GhostFile:
    """A deleted file that CRIU makes again for those who still have it open; it may be a device node."""

    number: int
    mode: int
    """st_mode, kind and permissions."""
    uid: int
    gid: int
    device: int
    """st_rdev for a device node, else 0."""


@dataclass(frozen=True, slots=True)
class Dump:
    source: ImageDirectory
    """The messages that all this was read from."""
    inventory: Inventory
    tasks: tuple[Task, ...]
    """The root first."""
    mounts: tuple[MountEntry, ...]
    files: tuple[OpenFile, ...]
    descriptors: tuple[Descriptor, ...]
    ghosts: tuple[GhostFile, ...]
    seccomp_filters: int
    """How many filters seccomp.img has."""
    file_locks: int
    """Restore needs --file-locks when there are any."""
    pod: PodNamespaces
    images: tuple[str, ...]
    """Names of all files in the dump's directory, those of unknown kinds included."""
    memory_bytes: int
    """Size of all pages images."""
    terminals: Mapping[int, int] = field(default_factory=dict)
    """Kind of each terminal by id (read_terminals)."""
    wide_page_counts: bool = False
    """Whether page maps count pages in 64 bits, as CRIU writes them since 4.2; shared/judge/memory.py has all alike."""
    filters: tuple[SeccompFilter, ...] = ()
    """In the order of seccomp.img, which Thread.seccomp_filter counts in."""
    linked: frozenset[int] = frozenset()
    """Files by whose name CRIU opens another that was deleted (link-remap)."""
    packets: tuple[QueuedPacket, ...] = ()
    """What waits at Unix sockets, files in flight included."""
    remapped: frozenset[int] = frozenset()
    """Files that were deleted, and that CRIU makes again."""
    ended: frozenset[int] = frozenset()
    """Pids of processes that had ended, which CRIU makes again for a moment to open files of theirs below /proc."""
    ipc: IpcObjects = field(default_factory=IpcObjects)
    """System V objects, none where the dump's IPC namespace is the node's."""

    @property
    def root(self) -> Task:
        return self.tasks[0]

    @property
    def hostname(self) -> str | None:
        """What the restore would set; None: it sets none."""
        return self.pod.hostname

    @property
    def domainname(self) -> str | None:
        return self.pod.domainname

    @property
    def sockets_established(self) -> bool:
        """Whether there is a TCP connection, which restore needs --tcp-established or --tcp-close for."""
        return any(isinstance(file, InternetSocket) and file.connected for file in self.files)

    @property
    def nested_namespaces(self) -> bool:
        """Whether some task is in another namespace than the root, of any kind."""
        return any(task.alive and task.ids.namespaces != self.root.ids.namespaces for task in self.tasks)

    @property
    def user_namespace(self) -> bool:
        """Whether the container had a user namespace of its own."""
        return self.root.ids.user_ns != self.inventory.ids.user_ns

    @property
    def cgroup_version(self) -> int | None:
        """1 or 2, by the kind of file system below /sys/fs/cgroup; None when the container has none mounted."""
        kinds = {mount.fstype for mount in self.mounts}
        return 1 if "cgroup" in kinds else 2 if "cgroup2" in kinds else None

    def regular_file(self, number: int) -> RegularFile | None:
        """The regular file with this id, e.g. Task.cwd_file."""
        return next((file for file in self.files if file.id == number and isinstance(file, RegularFile)), None)


def read_dump(files: CheckpointFiles, *, directory: str = "checkpoint") -> Dump:
    """Reads every image that says what a restore would create; ``directory`` is where they lie in the checkpoint.

    Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged, ImagePath, ImagesTooOld, FileTooLarge.
    """
    return dump_of(ImageDirectory(files, directory))


def dump_of(images: ImageDirectory) -> Dump:
    """As ``read_dump``; the messages stay with ``images``."""
    names = images.names()
    inventory = read_inventory(images)
    tasks = read_tasks(images)
    alive = [task for task in tasks if task.alive]
    if not tasks[0].alive:
        raise damaged(images.path(Kind.PSTREE.file()), "has a dead task for its root")
    root = tasks[0].ids
    filters = read_filters(images, alive)
    remaps = _remaps(images)
    return Dump(
        source=images,
        inventory=inventory,
        tasks=tasks,
        mounts=read_mounts(images, tuple(dict.fromkeys(task.ids.mnt_ns for task in alive))),
        files=read_files(images),
        descriptors=read_descriptors(images, dict.fromkeys(task.ids.files for task in alive)),
        ghosts=_ghosts(images, remaps),
        linked=frozenset(entry.remap_id for entry in remaps if entry.remap_type == _LINKED),
        remapped=frozenset(entry.orig_id for entry in remaps if entry.remap_type == _GHOST),
        ended=frozenset(entry.remap_id for entry in remaps if entry.remap_type == _PROCFS),
        seccomp_filters=len(filters),
        file_locks=len(images.entries(Kind.FILE_LOCKS, FileLockEntry)) if Kind.FILE_LOCKS.file() in images else 0,
        packets=read_packets(images),
        pod=read_namespaces(images, root, inventory.ids),
        ipc=read_ipc(images, root.ipc_ns) if root.ipc_ns != inventory.ids.ipc_ns else IpcObjects(),
        images=names,
        terminals=read_terminals(images),
        filters=filters,
        wide_page_counts=_wide_page_counts(images, tasks, names),
        memory_bytes=sum(images.files.size(images.path(name)) for name in names if name.startswith("pages-")),
    )


def _wide_page_counts(images: ImageDirectory, tasks: Sequence[Task], names: Sequence[str]) -> bool:
    maps = [(Kind.PAGEMAP, str(task.pid)) for task in tasks if task.alive]
    maps += [(Kind.SHMEM_PAGEMAP, found[1]) for name in names if (found := _SEGMENT.fullmatch(name))]
    return any(_counts_widely(images, kind, number) for kind, number in maps)


def _counts_widely(images: ImageDirectory, kind: Kind, number: str) -> bool:
    if kind.file(number) not in images:
        return False
    try:
        # The first message names the pages image.
        runs = [PagemapEntry.FromString(each) for each in islice(images.stream(kind, number), 1, 2)]
    except DecodeError as error:
        raise damaged(images.path(kind.file(number)), "has a message that does not decode") from error
    return any(run.HasField("nr_pages") for run in runs)


def _remaps(images: ImageDirectory) -> list[RemapFilePathEntry]:
    """CRIU before 1.8 did not write what kind of remap an entry is, and kept it in the number instead."""
    if Kind.REMAP_FPATH.file() not in images:
        return []
    remaps = images.entries(Kind.REMAP_FPATH, RemapFilePathEntry)
    if not all(entry.HasField("remap_type") for entry in remaps):
        raise damaged(images.path(Kind.REMAP_FPATH.file()), "does not say how a file is remapped")
    return remaps


def _ghosts(images: ImageDirectory, remaps: Sequence[RemapFilePathEntry]) -> tuple[GhostFile, ...]:
    """Those that some open file is remapped to; a ghost image goes on with the file's content after its message."""
    numbers = {entry.remap_id for entry in remaps if entry.remap_type == _GHOST}
    return tuple(_ghost(images, number) for number in sorted(numbers))


def _ghost(images: ImageDirectory, number: int) -> GhostFile:
    entry = images.first(Kind.GHOST_FILE, GhostFileEntry, f"{number:x}")
    return GhostFile(number, entry.mode, entry.uid, entry.gid, entry.rdev)
