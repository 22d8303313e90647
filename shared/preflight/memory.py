"""Whether a container's memory limit has room for what a dump would bring back.

Sources: criu/mem.c, premap_private_vma and restore_priv_vma_content (a child's pages that are as its parent's stay
shared with it), Linux Documentation/admin-guide/cgroup-v2.rst (what counts as memory of a cgroup).
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.memory import read_address_space, segment_bytes
from shared.preflight.findings import Finding, finding


def least_bytes(images: ImageDirectory, dump: Dump) -> int:
    """What the restored processes take at the very least; raises CheckpointInvalid.

    Areas at the same place in several processes count once: a fork's memory is in the dump as often as there are
    processes, and may be there only once after the restore. Huge pages do not count.
    """
    areas: dict[tuple[int, int], int] = {}
    segments: set[int] = set()
    for task in dump.tasks:
        if not task.alive or Kind.MM.file(task.pid) not in images:
            continue
        for area in read_address_space(images, task.pid).areas:
            if area.huge:
                continue
            place = area.start, area.end
            areas[place] = max(areas.get(place, 0), area.dumped_bytes)
            if area.segment is not None:
                segments.add(area.segment)
    return sum(areas.values()) + sum(segment_bytes(images, segment) for segment in segments)


def check_memory_limit(images: ImageDirectory, dump: Dump, limit_bytes: int) -> Iterator[Finding]:
    """``limit_bytes``: of memory and swap together."""
    if dump.memory_bytes <= limit_bytes or (least := least_bytes(images, dump)) <= limit_bytes:
        return
    needed = -(-least >> 20)
    yield finding(
        "MemoryLimitTooLow",
        "pod",
        f"the processes hold {needed} MiB of memory, the container's limit is {limit_bytes >> 20} MiB; raise "
        f"resources.limits.memory well above {needed}Mi",
    )
