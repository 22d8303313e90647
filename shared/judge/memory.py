"""Memory: the areas of each process, and the pages in them.

CRIU maps each area at its address with MAP_FIXED, as root, with the flags of the image, while its own code lies in a
gap that it looks for between them (criu/cr-restore.c, restorer_get_vma_hint; criu/mem.c, premap_private_vma;
criu/pie/restorer.c, restore_mapping). So areas must be in order and apart from each other, or memory of the checkpoint
would take the place of code that runs as root; and each must say consistently what it shows, or CRIU would map one of
its own descriptors.

AIO rings are made anew by io_setup(2) in the process. Where requests were done, CRIU opens /dev/null of the process's
root as root, and writes a byte there for each (restore_aio_ring): the root must be the container's own.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from shared.criu.areas import (
    AIO_RING,
    ANON_PRIVATE,
    ANON_SHARED,
    FILE_PRIVATE,
    FILE_SHARED,
    GUARD,
    HEAP,
    MAP_DROPPABLE,
    MAP_PRIVATE,
    MAP_SHARED,
    MEMFD,
    O_RDONLY,
    O_RDWR,
    REGULAR,
    SHADOW_STACK,
    SOCKET,
    STACK,
    SYSV_IPC,
    VDSO,
    VSYSCALL,
    VVAR,
    has_own_pages,
    mapped_file,
    open_flags,
    written_files,
)
from shared.criu.criu_pb2 import MmEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.open_files import OpenFile, RegularFile
from shared.criu.pagemaps import (
    ADDRESS_MAX,
    Pagemap,
    Span,
    check_pages,
    counted_otherwise,
    page_sizes,
    read_pagemap,
)
from shared.criu.segments import shared_segments
from shared.criu.tasks import Machine
from shared.errors import Refused
from shared.judge.huge_pages import Huge, huge_objects, huge_page_bytes
from shared.judge.paths import spelt_once
from shared.judge.restorer_memory import check_places, places
from shared.judge.rules import Fields, Rules, bounded, default, field_refused, free
from shared.judge.writing import ImageFile, Raw, image_file

_PAGE: Final = 4096
"""The smallest page of any machine."""
_ADVICE: Final = sum(1 << bit for bit in (1, 2, 10, 12, 14, 15, 16, 18))
"""linux/mman-common.h: RANDOM, SEQUENTIAL, DONTFORK, MERGEABLE, HUGEPAGE, NOHUGEPAGE, DONTDUMP, WIPEONFORK, which are
what CRIU reads off an area (criu/proc_parse.c). Others act at once, on a file too: REMOVE, POPULATE_WRITE."""
_STATUS_KIND: Final = REGULAR | FILE_PRIVATE | FILE_SHARED | ANON_SHARED | ANON_PRIVATE | SOCKET
_MARKS: Final[Mapping[int, int]] = {
    REGULAR | ANON_PRIVATE: STACK | HEAP | VDSO | VVAR | SHADOW_STACK,
    REGULAR | ANON_SHARED: SYSV_IPC,
    REGULAR | FILE_PRIVATE: MEMFD,
    REGULAR | FILE_SHARED: MEMFD,
    REGULAR | SOCKET: 0,
    ANON_PRIVATE: VSYSCALL,
    0: AIO_RING,
}
"""What an area of each kind may be besides (criu/proc_parse.c, handle_vma). One that is not REGULAR is not mapped:
the kernel's vsyscall page, an AIO ring, which CRIU makes by io_setup(2), and guard regions, which are advice."""
_VSYSCALL_PAGE: Final = 0xFFFFFFFFFF600000
_ANONYMOUS: Final[Mapping[Machine, int]] = {"mips": 0x800}
_GENERIC_FLAGS: Final = 0x20 | 0x100 | 0x2000 | 0x4000 | 0x40000 | 0x3F << 26
"""asm-generic/mman.h: MAP_ANONYMOUS, GROWSDOWN, LOCKED, NORESERVE, HUGETLB and the size of huge pages."""
_FLAGS: Final[Mapping[Machine, int]] = {
    "ppc64": 0x20 | 0x100 | 0x80 | 0x40 | 0x40000 | 0x3F << 26,
    "mips": 0x800 | 0x1000 | 0x8000 | 0x400 | 0x80000 | 0x3F << 26,
}
"""arch/*/include/uapi/asm/mman.h where it is different."""

_KERNEL_CHECKS: Final = "the kernel takes addresses of the process's own memory only (prctl, PR_SET_MM_MAP)"
_OWN: Final = "areas lie in order, apart from each other, within what a process can have"

FIELDS: Final[Fields] = {
    "MmEntry": {
        **{
            name: free(_KERNEL_CHECKS)
            for name in (
                "mm_start_code",
                "mm_end_code",
                "mm_start_data",
                "mm_end_data",
                "mm_start_stack",
                "mm_start_brk",
                "mm_brk",
                "mm_arg_start",
                "mm_arg_end",
                "mm_env_start",
                "mm_env_end",
            )
        },
        "exe_file_id": bounded("it is an ordinary file of files.img"),
        "mm_saved_auxv": free("it is shown in /proc, and read by nobody else"),
        "vmas": bounded("each has rules of its own"),
        "dumpable": bounded("a process may set it by itself (prctl)", lambda value: 0 <= value <= 2),
        "aios": bounded("each is an area of the process that is such a ring"),
        "thp_disabled": free("a process may set it by itself (prctl)"),
    },
    "AioRingEntry": {
        "id": bounded("an area that is a ring begins there"),
        "nr_req": free("Linux counts requests of all processes alike (fs.aio-max-nr)"),
        "ring_len": bounded("it is the size of that area"),
    },
    "VmaEntry": {
        "start": bounded(_OWN),
        "end": bounded(_OWN),
        "pgoff": bounded("it is a multiple of the page's size"),
        "shmid": bounded("it is the file, the segment or the socket that the area shows"),
        "prot": bounded("it is read, write and execute"),
        "flags": bounded("they fit what the area shows, and are those that /proc tells of an area"),
        "status": bounded("it says of what kind the area is, once, and nothing that CRIU notes during a restore"),
        "fd": bounded("it is -1, as long as CRIU has opened nothing; another number would be one of CRIU's own"),
        "madv": bounded("it is advice that /proc tells of an area"),
        "fdflags": bounded(
            "a file is opened for reading, or for reading and writing where it is mapped shared, and nothing else"
        ),
    },
    "PagemapHead": {"pages_id": bounded("no other page map names the same pages image")},
    "PagemapEntry": {
        "vaddr": bounded("pages are in order, apart from each other, in memory of the process's own"),
        "compat_nr_pages": bounded("it is the count, or 0 where nr_pages is; all page maps of a dump count alike"),
        "in_parent": default("only whole dumps restore"),
        "flags": bounded("the pages are there; that they might come later is said besides"),
        "nr_pages": bounded("all of them are in the pages image, and nothing else is"),
    },
}


def relations(images: ImageDirectory, dump: Dump) -> Iterator[Refused]:
    """Raises Refused("FieldExceeds") or CheckpointInvalid("ImageDamaged") for memory that no kernel would give."""
    files: dict[tuple[str, int], OpenFile] = {(file.kind, file.id): file for file in dump.files}
    huge = huge_objects(images, dump.tasks)
    for task in dump.tasks:
        if task.alive:
            mm = images.one(Kind.MM, MmEntry, task.pid)
            name = images.path(Kind.MM.file(task.pid))
            _check_executable(mm, files, name)
            _check_areas(mm, task.machine, files, huge, name)
            _check_rings(mm, name, files.get(("reg", task.root_file)))
    yield from ()


def _check_executable(mm: MmEntry, files: Mapping[tuple[str, int], OpenFile], name: str) -> None:
    file = files.get(("reg", mm.exe_file_id))
    if not isinstance(file, RegularFile) or (file.mode is not None and not stat.S_ISREG(file.mode)):
        raise damaged(name, "names an executable that files.img does not have, or that is no ordinary file")
    if file.flags & 3 != O_RDONLY:
        raise damaged(name, "names an executable that CRIU would open for writing")


def _check_areas(
    mm: MmEntry,
    machine: Machine,
    files: Mapping[tuple[str, int], OpenFile],
    huge: Huge,
    name: str,
) -> None:
    end = guard_end = 0
    covered: list[Span] = []
    anonymous = _ANONYMOUS.get(machine, 0x20)
    known = _FLAGS.get(machine, _GENERIC_FLAGS) | MAP_SHARED | MAP_PRIVATE | MAP_DROPPABLE
    for area in mm.vmas:
        start, stop, status, flags = area.start, area.end, area.status, area.flags
        if status == GUARD:
            # CRIU lists guard regions behind the areas they lie in (criu/mem.c, collect_madv_guards).
            if start < guard_end or stop <= start or (start | stop) % _PAGE or stop > ADDRESS_MAX:
                raise field_refused(name, area, "start", start, _OWN)
            if flags or area.prot or area.shmid or area.madv or area.fd != -1 or area.fdflags:
                raise field_refused(name, area, "flags", flags, "a guard region has an address and nothing else")
            if not _within(covered, start, stop):
                raise field_refused(name, area, "start", start, "a guard region lies in areas of the process")
            guard_end = stop
            continue
        if guard_end or start < end or stop <= start or (start | stop) % _PAGE:
            raise field_refused(name, area, "start", start, _OWN)
        end = stop
        if covered and covered[-1][1] == start:
            covered[-1] = (covered[-1][0], stop)
        else:
            covered.append((start, stop))
        kind = status & _STATUS_KIND
        marks = status & ~kind
        if kind not in _MARKS or marks & ~_MARKS[kind] or (not kind & REGULAR and marks not in (VSYSCALL, AIO_RING)):
            raise field_refused(name, area, "status", status, FIELDS["VmaEntry"]["status"].why)
        if stop > ADDRESS_MAX and not (marks == VSYSCALL and start == _VSYSCALL_PAGE and stop == start + _PAGE):
            raise field_refused(name, area, "end", stop, _OWN)
        if area.prot > 7 or area.pgoff % _PAGE or area.pgoff >> 63 or area.madv & ~_ADVICE:
            field = "prot" if area.prot > 7 else "madv" if area.madv & ~_ADVICE else "pgoff"
            raise field_refused(name, area, field, getattr(area, field), FIELDS["VmaEntry"][field].why)
        if not _fits(kind, marks, flags, anonymous) or flags & ~known:
            raise field_refused(name, area, "flags", flags, FIELDS["VmaEntry"]["flags"].why)
        if (shown := mapped_file(area)) is not None and shown not in files:
            raise damaged(name, f"has a {shown[0]} mapped at {start:#x} that files.img does not have")
        if (start | stop) % huge_page_bytes(area, huge):
            raise field_refused(name, area, "end", stop, "an area of huge pages has whole ones")
        if area.fd != -1 or area.fdflags not in (O_RDONLY, O_RDWR):
            field = "fdflags" if area.fd == -1 else "fd"
            raise field_refused(name, area, field, getattr(area, field), FIELDS["VmaEntry"][field].why)
    if not end:
        # CRIU would look for an image of its version 1
        raise damaged(name, "has no memory area")


def _within(covered: Sequence[Span], start: int, stop: int) -> bool:
    at = bisect_right(covered, (start, ADDRESS_MAX + _PAGE)) - 1
    return at >= 0 and stop <= covered[at][1]


def _fits(kind: int, marks: int, flags: int, anonymous: int) -> bool:
    """Whether mmap(2) shows with such flags what the status says, and needs no descriptor where CRIU opens none."""
    shared = flags & (MAP_SHARED | MAP_PRIVATE | MAP_DROPPABLE)
    if kind & (ANON_SHARED | FILE_SHARED | SOCKET) or marks == AIO_RING:
        if shared != MAP_SHARED:
            return False
    elif shared not in ((MAP_PRIVATE, MAP_DROPPABLE) if kind & ANON_PRIVATE else (MAP_PRIVATE,)):
        return False
    if marks == AIO_RING:
        return True  # CRIU adds MAP_ANONYMOUS
    return bool(flags & anonymous) == bool(kind & (ANON_PRIVATE | ANON_SHARED))


def _check_rings(mm: MmEntry, name: str, root: OpenFile | None) -> None:
    """Every AIO ring is an area, and every such area has one: CRIU reads and replaces what lies there."""
    if mm.aios and (not isinstance(root, RegularFile) or spelt_once(root.path) != "/"):
        raise field_refused(name, mm.aios[0], "id", mm.aios[0].id, "CRIU would write to /dev/null of another root")
    rings = {area.start: area.end - area.start for area in mm.vmas if area.status & AIO_RING}
    for ring in mm.aios:
        if rings.pop(ring.id, None) != ring.ring_len:
            raise field_refused(name, ring, "id", ring.id, "an area that is a ring begins there")
    if rings:
        raise damaged(name, f"has an AIO ring at {min(rings):#x} of which nothing else is said")


def files_written_by_mappings(images: ImageDirectory, dump: Dump) -> set[tuple[str, int]]:
    """Kind and id of each file that CRIU opens for reading and writing, because a process has it mapped shared."""
    return {
        found
        for task in dump.tasks
        if task.alive
        for found in written_files(images.one(Kind.MM, MmEntry, task.pid).vmas)
    }


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """Of each living process mm, page map and pages, and of each segment that something shows page map and pages.

    Page maps are copied once each of their messages was found to be as CRIU writes it, pages linked.
    Raises what read_pagemap() and check_pages() do.
    """
    sizes = page_sizes(dump.root.machine)
    users: dict[int, str] = {}
    kinds: set[bytes] = set()
    for task in dump.tasks:
        if not task.alive:
            continue
        mm = images.one(Kind.MM, MmEntry, task.pid)
        spans = _spans(mm)
        rules.apply(mm, images.path(Kind.MM.file(task.pid)))
        for area in mm.vmas:
            if area.status & (FILE_PRIVATE | FILE_SHARED):
                area.fdflags = open_flags(area)
        yield image_file(Kind.MM, [mm], task.pid)
        found = places(images, task, mm)
        pagemap = read_pagemap(images, Kind.PAGEMAP, task.pid, sizes[0], spans, found.spans)
        _check_count(pagemap, dump)
        unit = check_pages(images, pagemap, sizes, users)
        if unit != sizes[0]:  # only now is it known how far its runs reach
            pagemap = read_pagemap(images, Kind.PAGEMAP, task.pid, unit, spans, found.spans)
        check_places(images, task, mm, found, pagemap, unit, spans, kinds)
        yield _copied(images, Kind.PAGEMAP, task.pid)
        if pagemap.pages:
            yield ImageFile(pagemap.pages_file, (Raw(pagemap.pages_file),))
    for number in sorted(shared_segments(images, dump.tasks)):
        if Kind.SHMEM_PAGEMAP.file(number) in images:
            pagemap = read_pagemap(images, Kind.SHMEM_PAGEMAP, number, sizes[0])
            _check_count(pagemap, dump)
            check_pages(images, pagemap, sizes, users)
            yield _copied(images, Kind.SHMEM_PAGEMAP, number)
            if pagemap.pages:
                yield ImageFile(pagemap.pages_file, (Raw(pagemap.pages_file),))


def _check_count(pagemap: Pagemap, dump: Dump) -> None:
    if pagemap.wide is not None and pagemap.wide != dump.wide_page_counts:
        raise counted_otherwise(pagemap.name)


def _copied(images: ImageDirectory, kind: Kind, number: int) -> ImageFile:
    return ImageFile(kind.file(number), (kind.header, Raw(kind.file(number), len(kind.header))))


def _spans(mm: MmEntry) -> list[Span]:
    """Where the process may have pages of its own, in order; neighbouring areas are one."""
    found: list[Span] = []
    for area in mm.vmas:
        if has_own_pages(area.status):
            if found and found[-1][1] == area.start:
                found[-1] = (found[-1][0], area.end)
            else:
                found.append((area.start, area.end))
    return found
