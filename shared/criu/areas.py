"""Areas of a process's memory as CRIU's images name them. Sources: criu/include/image.h (VMA_…), linux/mman.h."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.criu.criu_pb2 import VmaEntry

REGULAR, STACK, VSYSCALL, VDSO, HEAP = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
FILE_PRIVATE, FILE_SHARED, ANON_SHARED, ANON_PRIVATE = 1 << 6, 1 << 7, 1 << 8, 1 << 9
SYSV_IPC, SOCKET, VVAR, AIO_RING = 1 << 10, 1 << 11, 1 << 12, 1 << 13
MEMFD, SHADOW_STACK, GUARD, UPROBES = 1 << 14, 1 << 15, 1 << 16, 1 << 17
"""Bits of an area's status. Higher ones are CRIU's own notes of a restore (VMA_PREMMAPED and others)."""

PROT_WRITE: Final = 2
MAP_SHARED, MAP_PRIVATE, MAP_DROPPABLE = 1, 2, 8
MAP_HUGETLB: Final = 0x40000
O_RDONLY, O_RDWR = 0, 2


def locked_flag(machine: str) -> int:
    """MAP_LOCKED (arch/*/include/uapi/asm/mman.h)."""
    return {"ppc64": 0x80, "mips": 0x8000}.get(machine, 0x2000)


def has_own_pages(status: int) -> bool:
    """Whether the process's own page map may have pages of such an area (criu/include/vma.h, vma_entry_is_private)."""
    if status & (SHADOW_STACK | AIO_RING):
        return True
    return bool(status & REGULAR and status & (FILE_PRIVATE | ANON_PRIVATE))


def mapped_file(area: VmaEntry) -> tuple[str, int] | None:
    """Kind and id of the file in files.img that an area shows."""
    if area.status & (FILE_PRIVATE | FILE_SHARED):
        return "memfd" if area.status & MEMFD else "reg", area.shmid
    return ("packetsk", area.shmid) if area.status & SOCKET else None


def open_flags(area: VmaEntry) -> int:
    """open(2) flags that the file of an area is opened with: a private one is only ever read."""
    if not area.status & FILE_SHARED:
        return O_RDONLY
    if area.HasField("fdflags"):
        return area.fdflags
    return O_RDWR if area.prot & PROT_WRITE else O_RDONLY  # as criu/files-reg.c, collect_filemap


def written_files(areas: Iterable[VmaEntry]) -> set[tuple[str, int]]:
    """Files that CRIU opens for writing, because a process has them mapped so that it may write to them."""
    return {
        found
        for area in areas
        if area.status & FILE_SHARED and open_flags(area) != O_RDONLY and (found := mapped_file(area)) is not None
    }
