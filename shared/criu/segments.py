"""Shared memory of a dump whose content lies in page maps of its own, by number.

Sources: criu/shmem.c, criu/memfd.c (memfd_open_inode_nocache), criu/ipc_ns.c (prepare_ipc_shm_seg): anonymous shared
memory, memfd files and System V segments all have their content in ``pagemap-shmem-<number>.img``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from shared.criu.areas import ANON_SHARED, SYSV_IPC
from shared.criu.criu_pb2 import IpcShmEntry, MemfdInodeEntry, MmEntry
from shared.criu.decode import damaged, decode
from shared.criu.images import ENTRY_BYTES_MAX, ImageDirectory, Kind, wrong_magic
from shared.criu.tasks import Task

_WORD_BYTES: Final = 4


def shared_segments(images: ImageDirectory, tasks: Sequence[Task]) -> set[int]:
    """Numbers of all segments that a process has mapped, a memfd file is, or the IPC namespaces have."""
    found = {
        area.shmid
        for task in tasks
        if task.alive
        for area in images.one(Kind.MM, MmEntry, task.pid).vmas
        if area.status & (ANON_SHARED | SYSV_IPC) == ANON_SHARED
    }
    if Kind.MEMFD.file() in images:
        found |= {entry.shmid for entry in images.entries(Kind.MEMFD, MemfdInodeEntry)}
    for namespace in {task.ids.ipc_ns for task in tasks if task.alive}:
        if Kind.IPC_SHM.file(namespace) in images:
            found |= set(_of_namespace(images, namespace))
    return found


def _of_namespace(images: ImageDirectory, namespace: int) -> Iterator[int]:
    """Segments with their content in page maps; that of others follows their message, padded to whole words."""
    name = images.path(Kind.IPC_SHM.file(namespace))
    with images.files.open(name) as image:
        if image.read(len(Kind.IPC_SHM.header)) != Kind.IPC_SHM.header:
            raise wrong_magic(name, Kind.IPC_SHM.value)
        while prefix := image.read(_WORD_BYTES):
            size = int.from_bytes(prefix, "little")
            if len(prefix) != _WORD_BYTES or size > ENTRY_BYTES_MAX:
                raise damaged(name, "ends in the middle of a message, or has too large a one")
            entry = decode(IpcShmEntry, image.read(size), name)
            if entry.in_pagemaps:
                yield entry.desc.id
                continue
            left = -(-entry.size // _WORD_BYTES) * _WORD_BYTES
            while left > 0 and (passed := len(image.read(min(left, 1 << 20)))):
                left -= passed
