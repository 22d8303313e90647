"""The seccomp filters of a dump, and which threads CRIU confines by them.

CRIU keeps, for each thread with filters, a chain that ends with its oldest one. Where all threads of a process have the
same filters, it keeps the leader's alone, marked SECCOMP_FILTER_FLAG_TSYNC, and writes of the other threads that they
have none (criu/seccomp.c, try_use_tsync): on restore the kernel gives the leader's filters to all of them.
Sources: criu/seccomp.c, criu/pie/restorer.c (restore_seccomp_filter), linux kernel/seccomp.c
(seccomp_can_sync_threads).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shared.criu.criu_pb2 import SeccompEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind
from shared.criu.tasks import Task

MODE_FILTER: Final = 2
"""prctl(2), PR_GET_SECCOMP: 0 is none, 1 is strict mode, which allows less than any filter."""
TSYNC: Final = 1
LOG: Final = 2
"""seccomp(2), SECCOMP_FILTER_FLAG_…"""
FILTERS_MAX: Final = 65_536
INSTRUCTION_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class SeccompFilter:
    """One filter; the kernel runs it and those before it, and the strictest answer counts (seccomp(2))."""

    program: bytes
    """struct sock_filter after struct sock_filter (linux/filter.h)."""
    previous: int | None
    """Index of the next newer filter; CRIU installs the oldest one first."""
    flags: int = 0


def read_filters(images: ImageDirectory, tasks: Sequence[Task]) -> tuple[SeccompFilter, ...]:
    """Every filter, in the order that Thread.seccomp_filter counts in. Raises CheckpointInvalid("ImageDamaged").

    CRIU follows ``prev`` without counting, and indexes an empty image without looking.
    """
    name = images.path(Kind.SECCOMP.file())
    entries = images.entries(Kind.SECCOMP, SeccompEntry) if Kind.SECCOMP.file() in images else []
    if len(entries) > 1:
        raise damaged(name, f"has {len(entries)} messages instead of one")
    if entries and len(entries[0].seccomp_filters) > FILTERS_MAX:
        raise damaged(name, f"has {len(entries[0].seccomp_filters)} filters")
    filters = tuple(
        SeccompFilter(each.filter, each.prev if each.HasField("prev") else None, each.flags)
        for entry in entries
        for each in entry.seccomp_filters
    )
    for index, each in enumerate(filters):
        if len(each.program) % INSTRUCTION_BYTES or not each.program:
            raise damaged(name, f"has a filter {index} that is no list of instructions")
    _check_chains(filters, name)
    used = {thread.seccomp_filter or 0 for task in tasks for thread in task.threads if thread.seccomp_mode == 2}
    if used and max(used) >= len(filters):
        raise damaged(name, f"lacks the filter {max(used)} that a thread has")
    return filters


def _check_chains(filters: Sequence[SeccompFilter], name: str) -> None:
    state = [0] * len(filters)
    for start in range(len(filters)):
        followed: list[int] = []
        index = start
        while state[index] == 0:
            state[index] = 1
            followed.append(index)
            previous = filters[index].previous
            if previous is None:
                break
            index = previous
            if index >= len(filters) or state[index] == 1:
                raise damaged(name, f"has a filter {followed[-1]} whose predecessor is missing or itself")
        for index in followed:
            state[index] = 2


def chain(filters: Sequence[SeccompFilter], last: int) -> Iterator[SeccompFilter]:
    """``last`` and those that CRIU installs after it."""
    index: int | None = last
    while index is not None:
        yield filters[index]
        index = filters[index].previous


def shares_filters(task: Task, filters: Sequence[SeccompFilter]) -> bool:
    """Whether CRIU gives the leader's filters to all threads of the process.

    The kernel does so only if none of the others has filters of its own, or strict mode. Otherwise it installs nothing
    and returns a thread's number, which CRIU takes for success: the leader would then run without filters too.
    """
    if not task.threads or task.threads[0].seccomp_mode != MODE_FILTER:
        return False
    if any(thread.seccomp_mode for thread in task.threads[1:]):
        return False
    return all(each.flags & TSYNC for each in chain(filters, task.threads[0].seccomp_filter or 0))
