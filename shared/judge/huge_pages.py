"""Memory of huge pages: the kernel rounds the size of such a mapping up to whole ones (mm/mmap.c, ksys_mmap_pgoff).

CRIU maps with MAP_FIXED, so an area that ends within a huge page would take the place of what lies behind it, CRIU's
own code among that (criu/pie/restorer.c, restore_mapping).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from shared.criu.areas import ANON_SHARED, MAP_HUGETLB, mapped_file
from shared.criu.criu_pb2 import MemfdInodeEntry, MmEntry, VmaEntry
from shared.criu.images import ImageDirectory, Kind
from shared.criu.tasks import Task
from shared.judge.regular_files import MEMORY, of_kind

_SHIFT: Final = 26
_SIZE: Final = 0x3F
_LARGEST: Final = 1 << 34
"""16 GiB (linux/mman.h); what an area without a size has is the node's choice. CRIU always writes one."""
_MFD_HUGETLB: Final = 4


Huge = Mapping[tuple[str, int], int]
"""Bytes of a page of each file of memory and shared segment that has huge ones, by kind and number."""


def huge_page_bytes(area: VmaEntry, shown: Huge) -> int:
    """What the addresses of an area must be multiples of; flags are those of x86 and the generic header."""
    own = _bytes(area.flags) if area.flags & MAP_HUGETLB else 1
    return max(own, shown.get(_shown(area), 1))


def huge_objects(images: ImageDirectory, tasks: Iterable[Task]) -> Huge:
    """What has huge pages: CRIU makes a segment by any one of the areas that show it."""
    found: dict[tuple[str, int], int] = {}
    for task in tasks:
        if task.alive:
            for area in images.one(Kind.MM, MmEntry, task.pid).vmas:
                if area.flags & MAP_HUGETLB and area.status & ANON_SHARED:
                    found[_shown(area)] = max(_bytes(area.flags), found.get(_shown(area), 1))
    if Kind.MEMFD.file() in images:
        inodes = images.entries(Kind.MEMFD, MemfdInodeEntry)
        huge = {each.inode_id: _bytes(each.hugetlb_flag) for each in inodes if each.hugetlb_flag & _MFD_HUGETLB}
        for entry in of_kind(images, MEMORY):
            if entry.memfd.inode_id in huge:
                found["memfd", entry.memfd.id] = huge[entry.memfd.inode_id]
    return found


def _shown(area: VmaEntry) -> tuple[str, int]:
    return mapped_file(area) or ("segment" if area.status & ANON_SHARED else "", area.shmid)


def _bytes(flags: int) -> int:
    return 1 << shift if (shift := flags >> _SHIFT & _SIZE) else _LARGEST
