"""A task's memory as the dump has it: its areas, how much of each was dumped, and bounded pieces of the content.

Sources: images/{mm,vma,pagemap}.proto, criu/pagemap.c (the pages of a
pagemap lie one after the other in its pages image), linux/mman.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from google.protobuf.message import DecodeError

from shared.criu.areas import (
    ANON_PRIVATE,
    ANON_SHARED,
    FILE_PRIVATE,
    FILE_SHARED,
    GUARD,
    HEAP,
    MEMFD,
    SHADOW_STACK,
    STACK,
    SYSV_IPC,
    UPROBES,
    VDSO,
    VSYSCALL,
    VVAR,
)
from shared.criu.criu_pb2 import MmEntry, PagemapEntry, PagemapHead, VmaEntry
from shared.criu.decode import damaged
from shared.criu.images import IMAGE_BYTES_MAX, ImageDirectory, Kind, split

AreaKind = Literal["anonymous", "heap", "stack", "file", "shared file", "shared", "memfd", "kernel", "other"]
KINDS: Final[tuple[AreaKind, ...]] = (
    "anonymous",
    "heap",
    "stack",
    "file",
    "shared file",
    "shared",
    "memfd",
    "kernel",
    "other",
)

AREAS_MAX: Final = 1 << 20
"""Linux' own limit is 65,530 by default (vm.max_map_count); databases raise it to 262,144 and more."""
_AREA_KEY: Final = bytes([14 << 3 | 2])
"""How every area begins in the message: field 14, with a length. It may stand elsewhere too; the limit has room."""
_PAGE_BYTES: Final = (4096, 16_384, 65_536)
"""The image does not say which of them an aarch64 or ppc64 kernel had; the size of the pages image does."""
_PE_PRESENT: Final = 4
_GROWSDOWN, _HUGETLB = 0x100, 0x40000


@dataclass(frozen=True, slots=True)
class Area:
    """One mapping; addresses and sizes in bytes."""

    start: int
    end: int
    kind: AreaKind
    access: str
    """As in /proc/PID/maps: ``rwxp``, with ``s`` for shared."""
    offset: int
    """Of the first byte in its file."""
    file: int | None
    """Id of the mapped file in files.img."""
    segment: int | None
    """CRIU's number of shared anonymous memory, as in ``pagemap-shmem-<number>.img``; its content is dumped once."""
    dumped_bytes: int
    """How much of it the task's own pages hold; the rest is in its file, in a segment, or was never touched."""
    huge: bool = False
    """Of huge pages, which count against a limit of their own."""

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class AddressSpace:
    pid: int
    areas: tuple[Area, ...]
    executable: int
    """Id of a regular file."""
    arguments: tuple[int, int]
    """First address and the one after the last, of the command line."""
    environment: tuple[int, int]
    page_bytes: int
    pages: str
    """Name of the pages image."""

    @property
    def dumped_bytes(self) -> int:
        return sum(area.dumped_bytes for area in self.areas)

    @property
    def mapped_bytes(self) -> int:
        return sum(area.size for area in self.areas)


def read_address_space(images: ImageDirectory, pid: int) -> AddressSpace:
    """Reads the areas and counts dumped pages; no pages are read.

    Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged.
    """
    name = images.path(Kind.MM.file(pid))
    _check_count(images, name, pid)
    mm = images.one(Kind.MM, MmEntry, pid)
    # Guard regions (madvise(2), MADV_GUARD_INSTALL) follow the areas that they lie in, since CRIU 4.2.
    vmas = [vma for vma in mm.vmas if not vma.status & GUARD]
    end = 0
    for vma in vmas:
        if vma.start < end or vma.end <= vma.start:
            raise damaged(name, f"has an area at {vma.start:#x} that is empty, out of order or overlaps another")
        end = vma.end
    pages, unit = _pages_image(images, Kind.PAGEMAP, pid)
    dumped = _dumped(vmas, _runs(images, Kind.PAGEMAP, pid, unit))
    return AddressSpace(
        pid=pid,
        areas=tuple(_area(vma, mm.mm_start_stack, size) for vma, size in zip(vmas, dumped, strict=True)),
        executable=mm.exe_file_id,
        arguments=(mm.mm_arg_start, mm.mm_arg_end),
        environment=(mm.mm_env_start, mm.mm_env_end),
        page_bytes=unit,
        pages=pages,
    )


def segment_bytes(images: ImageDirectory, segment: int) -> int:
    """How much of a shared segment was dumped; 0 without an image, as for one that was never written to."""
    if Kind.SHMEM_PAGEMAP.file(segment) not in images:
        return 0
    _, unit = _pages_image(images, Kind.SHMEM_PAGEMAP, segment)
    return sum(size for _, size, _ in _runs(images, Kind.SHMEM_PAGEMAP, segment, unit))


def read_memory(images: ImageDirectory, space: AddressSpace, start: int, end: int) -> bytes:
    """The dumped bytes from ``start`` on, up to ``end`` or the first byte that was not dumped; none when that is first.

    The caller bounds ``end - start``. A compressed archive is decompressed up to the pages for it.
    """
    pieces: list[bytes] = []
    at = start
    for address, size, offset in _runs(images, Kind.PAGEMAP, space.pid, space.page_bytes):
        if at >= end or address > at:
            break
        if at < address + size:
            stop = min(end, address + size)
            pieces.append(_read_at(images, space.pages, offset + at - address, stop - at))
            at = stop
    return b"".join(pieces)


def _read_at(images: ImageDirectory, name: str, offset: int, size: int) -> bytes:
    with images.files.open(images.path(name)) as file:
        if file.seekable():
            file.seek(offset)
        else:
            while offset > 0 and (passed := file.read(min(offset, 1 << 20))):
                offset -= len(passed)
        return file.read(size)


def _runs(images: ImageDirectory, kind: Kind, number: int, unit: int) -> Iterator[tuple[int, int, int]]:
    """Address, size and offset in the pages image of each run of dumped pages, addresses ascending."""
    name = images.path(kind.file(number))
    offset = end = 0
    for entry in _entries(images, kind, number):
        present = entry.flags & _PE_PRESENT if entry.HasField("flags") else not entry.in_parent
        size = (entry.nr_pages if entry.HasField("nr_pages") else entry.compat_nr_pages) * unit
        if entry.vaddr < end:
            raise damaged(name, f"has pages at {entry.vaddr:#x} out of order or overlapping")
        end = entry.vaddr + size
        if present:
            yield entry.vaddr, size, offset
            offset += size


def _entries(images: ImageDirectory, kind: Kind, number: int) -> Iterator[PagemapEntry]:
    name = images.path(kind.file(number))
    pieces = images.stream(kind, number)
    try:
        next(pieces, None)
        for piece in pieces:
            yield PagemapEntry.FromString(piece)
    except DecodeError as error:
        raise damaged(name, "has a message that does not decode") from error


def _pages_image(images: ImageDirectory, kind: Kind, number: int) -> tuple[str, int]:
    """Name of the pages image and the bytes of a page."""
    name = images.path(kind.file(number))
    try:
        first = next(images.stream(kind, number), b"")
        pages = f"pages-{PagemapHead.FromString(first).pages_id}.img"
    except DecodeError as error:
        raise damaged(name, "has a message that does not decode") from error
    count = sum(size for _, size, _ in _runs(images, kind, number, 1))
    size = images.files.size(images.path(pages)) if pages in images else 0
    unit = size // count if count else _PAGE_BYTES[0]
    if unit not in _PAGE_BYTES or unit * count != (size if count else 0):
        raise damaged(images.path(pages), f"has {size} bytes, which is not {count} pages; the dump is incomplete")
    return pages, unit


def _check_count(images: ImageDirectory, name: str, pid: int) -> None:
    """Counts the areas before they are decoded: an empty one has two bytes in the image and a hundred in memory."""
    for message in split(images.files.read(name, IMAGE_BYTES_MAX), Kind.MM, name):
        if message.count(_AREA_KEY) > AREAS_MAX:
            raise damaged(name, "has too many areas")


def _dumped(vmas: Sequence[VmaEntry], runs: Iterator[tuple[int, int, int]]) -> list[int]:
    """Bytes of the runs that fall into each area, both in ascending order."""
    found = [0] * len(vmas)
    index = 0
    for address, size, _ in runs:
        while index < len(vmas) and vmas[index].end <= address:
            index += 1
        at = index
        while at < len(vmas) and vmas[at].start < address + size:
            found[at] += min(vmas[at].end, address + size) - max(vmas[at].start, address)
            at += 1
    return found


def _area(vma: VmaEntry, start_stack: int, dumped_bytes: int) -> Area:
    status = vma.status
    of_file = status & (FILE_PRIVATE | FILE_SHARED) and not status & MEMFD
    shared = status & (FILE_SHARED | ANON_SHARED | SYSV_IPC)
    letters = [letter if vma.prot >> bit & 1 else "-" for bit, letter in enumerate("rwx")]
    return Area(
        start=vma.start,
        end=vma.end,
        kind=_kind(vma, start_stack),
        access="".join(letters) + ("s" if shared else "p"),
        offset=vma.pgoff,
        file=vma.shmid if of_file else None,
        segment=vma.shmid if status & ANON_SHARED and not status & SYSV_IPC else None,
        dumped_bytes=dumped_bytes,
        huge=bool(vma.flags & _HUGETLB),
    )


def _kind(vma: VmaEntry, start_stack: int) -> AreaKind:
    status = vma.status
    if status & (VSYSCALL | VDSO | VVAR | UPROBES):
        return "kernel"
    if status & MEMFD:
        return "memfd"
    if status & (STACK | SHADOW_STACK) or vma.flags & _GROWSDOWN or vma.start <= start_stack < vma.end:
        return "stack"
    if status & HEAP:
        return "heap"
    if status & FILE_PRIVATE:
        return "file"
    if status & FILE_SHARED:
        return "shared file"
    if status & (ANON_SHARED | SYSV_IPC):
        return "shared"
    return "anonymous" if status & ANON_PRIVATE else "other"
