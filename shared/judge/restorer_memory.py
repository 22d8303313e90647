"""What CRIU's restorer, or the kernel for it, writes in a process's memory by addresses of the checkpoint.

The restorer runs with root's rights and without seccomp filters in the address space that it restores, in the first gap
between the areas, so a checkpoint knows where (criu/cr-restore.c, restorer_get_vma_hint). What it writes there must
thus be in the process's own areas: the jumps that it puts into the vdso, and the area of restartable sequences, which
the kernel writes from before the thread has its filters and credentials (criu/pie/restorer.c, restore_rseq). From then
on the kernel also obeys what that area names (rseq(2)): a sequence that had the restorer's code in it would have the
restorer go on in the checkpoint's own code. Linux empties the area's pointer since 6.15 only (kernel/rseq.c).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from shared.criu.areas import ANON_PRIVATE, FILE_PRIVATE, GUARD, REGULAR, SHADOW_STACK, VDSO, VVAR
from shared.criu.criu_pb2 import CoreEntry, MmEntry, VmaEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind
from shared.criu.pagemaps import Pagemap, Span, read_pagemap, read_spans
from shared.criu.tasks import Task
from shared.criu.vdso import vdso_flaw
from shared.judge.rules import field_refused

RSEQ_ALIGNMENT: Final = 32
RSEQ_BYTES_MAX: Final = 4096
"""linux/rseq.h: 32 bytes at least, at an address that is a multiple of 32; newer kernels know a few bytes more."""
RSEQ_WHY: Final = "it is private memory of the process's own, for the kernel writes there while CRIU has root's rights"
VDSO_BYTES_MAX: Final = 128 << 10
"""Two pages of the largest size; x86 has two of 4096 bytes."""
VDSO_KINDS_MAX: Final = 4
"""A dump has one for 64 bits and one for 32, and such that CRIU patched before: each costs the worker a millisecond."""
_POINTER_AT: Final = 8
_SEQUENCE: Final = struct.Struct("=8xQQ8x")
"""struct rseq_cs: version and flags, where the sequence begins, its length, where it goes on when interrupted."""
_POINTER: Final = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Places:
    """What is to be looked at in one process's pages."""

    vdso: tuple[Span, ...]
    pointers: tuple[Span, ...]
    """Where areas of restartable sequences name a sequence."""

    @property
    def spans(self) -> list[Span]:
        return sorted({*self.vdso, *self.pointers})


def places(images: ImageDirectory, task: Task, mm: MmEntry) -> Places:
    """Raises Refused("FieldExceeds") for an area of restartable sequences that is not the process's own memory."""
    name = images.path(Kind.MM.file(task.pid))
    vdso: list[Span] = []
    for area in mm.vmas:
        if area.status & VDSO:
            if vdso or area.end - area.start > VDSO_BYTES_MAX:
                raise field_refused(name, area, "status", area.status, "a process has one vdso, of a few pages")
            vdso.append((area.start, area.end))
    private = [area for area in mm.vmas if _is_private(area)]
    starts = [area.start for area in private]
    pointers: list[Span] = []
    for thread in task.threads:
        entry = images.one(Kind.CORE, CoreEntry, thread.tid).thread_core.rseq_entry
        start = entry.rseq_abi_pointer
        if not start:
            continue
        at = bisect_right(starts, start) - 1
        end = start + max(entry.rseq_abi_size, RSEQ_ALIGNMENT)
        if at < 0 or end > private[at].end or start % RSEQ_ALIGNMENT or entry.rseq_abi_size > RSEQ_BYTES_MAX:
            image = images.path(Kind.CORE.file(thread.tid))
            raise field_refused(image, entry, "rseq_abi_pointer", start, RSEQ_WHY)
        pointers.append((start + _POINTER_AT, start + _POINTER_AT + _POINTER.size))
    return Places(tuple(vdso), tuple(pointers))


def _is_private(area: VmaEntry) -> bool:
    kind, other = ANON_PRIVATE | FILE_PRIVATE, VDSO | VVAR | SHADOW_STACK
    return bool(area.status & REGULAR and area.status & kind and not area.status & other)


def check_places(
    images: ImageDirectory,
    task: Task,
    mm: MmEntry,
    found: Places,
    pagemap: Pagemap,
    unit: int,
    spans: Sequence[Span],
    kinds: set[bytes],
) -> None:
    """Looks at what the process's pages hold at the places; ``pagemap`` was read with their spans as wanted.

    ``unit``: bytes of a page; ``spans``: where there may be pages; ``kinds``: every vdso of the dump, to which this one
    is added. Raises CheckpointInvalid("ImageDamaged").
    """
    wanted = found.spans
    if not wanted:
        return
    contents = dict(zip(wanted, read_spans(images, pagemap, unit, wanted), strict=True))
    name = images.path(pagemap.pages_file)
    for span in found.vdso:
        content = contents[span]
        kinds.add(content or b"")
        if len(kinds) > VDSO_KINDS_MAX:
            raise damaged(name, f"has one more kind of vdso than the {VDSO_KINDS_MAX} that are looked at in a dump")
        flaw = "was not dumped" if content is None else vdso_flaw(content, **_VDSO.get(task.machine, {}))
        if flaw:
            raise damaged(name, f"has a vdso of process {task.pid} that {flaw}; CRIU would patch what is not the vdso")
    named = set()
    for span in found.pointers:
        content = contents[span]
        if content is None:
            if _area_at(mm.vmas, span[0]).status & FILE_PRIVATE:
                raise _not_known(name, task)
        elif sequence := _POINTER.unpack(content)[0]:
            named.add(sequence)
    if named:
        _check_sequences(images, task, mm, sorted(named), unit, spans)


_VDSO: Final[dict[str, dict[str, int]]] = {"s390": {"big_endian": True, "hash_bytes": 8}}


def _check_sequences(
    images: ImageDirectory, task: Task, mm: MmEntry, named: Sequence[int], unit: int, spans: Sequence[Span]
) -> None:
    """Every sequence must lie in one area, where the restorer never is."""
    at = [(start, start + _SEQUENCE.size) for start in named]
    pagemap = read_pagemap(images, Kind.PAGEMAP, task.pid, unit, spans, _apart(at))
    name = images.path(pagemap.pages_file)
    for content in read_spans(images, pagemap, unit, at):
        if content is None:
            raise _not_known(name, task)
        start, length = _SEQUENCE.unpack(content)
        area = next((each for each in mm.vmas if each.start <= start < each.end and each.status != GUARD), None)
        if area is None or start + length > area.end:
            raise damaged(
                name,
                f"has a restartable sequence of process {task.pid} at {start:#x}, outside of its own memory; the "
                "kernel would interrupt CRIU by it",
            )


def _apart(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in spans:
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _area_at(areas: Iterable[VmaEntry], address: int) -> VmaEntry:
    return next(area for area in areas if area.start <= address < area.end and area.status != GUARD)


def _not_known(name: str, task: Task) -> Exception:
    return damaged(
        name,
        f"does not have what process {task.pid} was doing when it was dumped (rseq); take a new checkpoint with a "
        "program that does not keep its restartable sequences in a file",
    )
