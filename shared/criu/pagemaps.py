"""Page maps: which pages of a process or a shared segment were dumped, in one canonical spelling.

Page maps may have millions of entries, so that each is looked at once here, and copied as it is.
Sources: images/pagemap.proto, criu/pagemap.c (init_pagemaps, init_compat_pagemap_entry), criu/shmem.c
(do_restore_shmem_content adds addresses without looking whether the sum is too large).

CRIU before 4.2 does not know the count of 64 bits: it takes such a run for an empty one, and the pages of the runs
behind it from the wrong place. So all page maps of a dump count alike, for what was looked at to be what is restored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from shared.criu.criu_pb2 import PagemapEntry, PagemapHead
from shared.criu.decode import damaged, decode
from shared.criu.images import ImageDirectory, Kind
from shared.errors import CheckpointInvalid

PAGE_BYTES: Final = {"x86_64": (4096,), "s390": (4096,), "arm": (4096,)}
OTHER_PAGE_BYTES: Final = (4096, 16_384, 65_536)
"""The image does not say which of them an aarch64 or ppc64 kernel had; the size of the pages image does."""
ADDRESS_MAX: Final = 1 << 57
"""No kernel gives a process more (linux Documentation/arch/x86/x86_64/5level-paging.rst)."""
PE_PARENT: Final = 1
PE_LAZY: Final = 2
PE_PRESENT: Final = 4
_VARINT: Final = rb"(?:\x00|[\x80-\xff]{0,8}[\x01-\x7f]|[\x80-\xff]{9}\x01)"
_CANONICAL: Final = re.compile(
    rb"\x08" + _VARINT + rb"\x10" + _VARINT + rb"(?:\x20" + _VARINT + rb")?(?:\x28" + _VARINT + rb")?"
).fullmatch
"""One PagemapEntry as CRIU writes it; decode() gives the reason for any other."""

Span = tuple[int, int]
"""First address and the one after the last."""


@dataclass(frozen=True, slots=True)
class Pagemap:
    name: str
    """Of its image, for messages."""
    pages_id: int
    pages: int
    """How many pages the pages image has for it."""
    wide: bool | None = None
    """Whether its runs count in 64 bits; None: it has no run."""
    runs: tuple[tuple[int, int, int], ...] = ()
    """Address, number of pages, and pages before them in the pages image, of each run with wanted addresses."""

    @property
    def pages_file(self) -> str:
        return f"pages-{self.pages_id}.img"


def page_sizes(machine: str) -> tuple[int, ...]:
    return PAGE_BYTES.get(machine, OTHER_PAGE_BYTES)


def read_pagemap(
    images: ImageDirectory,
    kind: Kind,
    number: int | str,
    unit: int,
    spans: Sequence[Span] | None = None,
    wanted: Sequence[Span] = (),
) -> Pagemap:
    """Reads a page map to its end; ``unit``: the smallest page of the machine. Only wanted runs of it are kept.

    ``spans``: areas that may have pages, in order and apart from each other; None: any may. ``wanted``: addresses whose
    pages are to be found, in order and apart from each other.
    Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged, ImageUnknown, ParentMissing, PagesMissing.
    """
    name = images.path(kind.file(number))
    pieces = images.stream(kind, number)
    head = next(pieces, None)
    if head is None:
        raise damaged(name, "is empty")
    runs: list[tuple[int, int, int]] = []
    pages, wide = _count(pieces, name, unit, spans, wanted, runs)
    return Pagemap(name, decode(PagemapHead, head, name).pages_id, pages, wide, tuple(runs))


def _count(
    pieces: Iterator[bytes],
    name: str,
    unit: int,
    spans: Sequence[Span] | None,
    wanted: Sequence[Span],
    runs: list[tuple[int, int, int]],
) -> tuple[int, bool | None]:
    pages = end = at = 0
    counted: bool | None = None
    left = list(reversed(wanted))
    sought = left[-1][0] if left else ADDRESS_MAX
    low, high = (spans[0] if spans else (0, 0)) if spans is not None else (0, ADDRESS_MAX)
    parse = PagemapEntry.FromString
    for piece in pieces:
        entry = parse(piece) if _CANONICAL(piece) else _decoded(piece, name)
        start, flags, count, wide = entry.vaddr, entry.flags, entry.nr_pages, True
        if flags & ~PE_LAZY != PE_PRESENT or not count or entry.in_parent or entry.compat_nr_pages:
            count, wide = _older(entry, name)
        if wide is not counted:
            if counted is not None:
                raise counted_otherwise(name)
            counted = wide
        if start % unit or start < end or not count or (end := start + count * unit) > ADDRESS_MAX:
            raise damaged(name, f"has pages at {start:#x} out of order, overlapping or not aligned")
        while end > high:
            at += 1
            if spans is None or at >= len(spans):
                break
            low, high = spans[at]
        if start < low or end > high:
            raise damaged(name, f"has pages at {start:#x}, where the process has no memory of its own")
        if end > sought:
            sought = _keep(left, (start, count, pages), end, runs)
        pages += count
    return pages, counted


def counted_otherwise(name: str) -> CheckpointInvalid:
    """For runs that do not count their pages as all others of the dump do."""
    return damaged(
        name, "counts some pages in 32 bits and others in 64; CRIU before 4.2 would put them at other addresses"
    )


def _decoded(piece: bytes, name: str) -> PagemapEntry:
    entry = decode(PagemapEntry, piece, name)
    if entry.HasField("in_parent") and not entry.in_parent:
        raise damaged(name, "has pages that are said not to be an earlier dump's, which CRIU leaves out")
    return entry


def _keep(left: list[Span], run: tuple[int, int, int], end: int, runs: list[tuple[int, int, int]]) -> int:
    """Keeps ``run`` if it has wanted addresses; returns the first address that is still sought."""
    while left and left[-1][1] <= run[0]:
        left.pop()
    if left and left[-1][0] < end:
        runs.append(run)
    while left and left[-1][1] <= end:
        left.pop()
    return left[-1][0] if left else ADDRESS_MAX


def _older(entry: PagemapEntry, name: str) -> tuple[int, bool]:
    """Count of an entry as any version of CRIU wrote it, and whether in 64 bits, or why there is no such entry."""
    flags = entry.flags if entry.HasField("flags") else PE_PRESENT
    if flags & PE_PARENT or entry.in_parent:
        raise CheckpointInvalid("ParentMissing", f"{name} needs the pages of an earlier dump; only whole dumps restore")
    if not flags & PE_PRESENT:
        raise CheckpointInvalid("PagesMissing", f"{name} has pages that were left on the node (a lazy dump)")
    if flags & ~(PE_PRESENT | PE_LAZY):
        raise damaged(name, f"has pages with the flags {flags:#x}, which CRIU does not have")
    if not entry.HasField("nr_pages"):
        return entry.compat_nr_pages, False
    if entry.compat_nr_pages:
        # CRIU before 4.2 would read this count, later ones the other
        raise damaged(name, "has two counts for the same pages")
    return entry.nr_pages, True


def check_pages(images: ImageDirectory, pagemap: Pagemap, page_bytes: Sequence[int], users: dict[int, str]) -> int:
    """The pages image has the size that its page map says, and no other page map: CRIU spins on one that is short.

    ``users``: page maps by the pages image they have, to which this one is added. Returns the bytes of a page.
    Raises CheckpointInvalid: ImageDamaged, PagesSizeMismatch.
    """
    if pagemap.pages_id in users:
        raise damaged(pagemap.name, f"shares its pages with {users[pagemap.pages_id]}")
    users[pagemap.pages_id] = pagemap.name
    file = images.path(pagemap.pages_file)
    # CRIU creates an image with its first byte, so a process without private memory has no pages image
    size = images.files.size(file) if pagemap.pages or file in images.files else 0
    unit = next((unit for unit in page_bytes if size == pagemap.pages * unit), None)
    if unit is None:
        raise CheckpointInvalid(
            "PagesSizeMismatch",
            f"{file} has {size} bytes, but {pagemap.name} lists {pagemap.pages} pages of {page_bytes[0]}; the dump is "
            "incomplete",
        )
    return unit


def read_spans(images: ImageDirectory, pagemap: Pagemap, unit: int, spans: Sequence[Span]) -> list[bytes | None]:
    """What the wanted ``spans`` hold, in order; None where a page of one was not dumped. The caller bounds their size.

    ``unit``: bytes of a page.
    """
    if not pagemap.runs:
        return [None] * len(spans)
    with images.files.open(images.path(pagemap.pages_file)) as file:
        return [_span(file, pagemap, unit, span) for span in spans]


def _span(file: BinaryIO, pagemap: Pagemap, unit: int, span: Span) -> bytes | None:
    at, end = span
    pieces = []
    for start, count, before in pagemap.runs:
        if start <= at < start + count * unit:
            stop = min(end, start + count * unit)
            _go_to(file, before * unit + at - start)
            pieces.append(file.read(stop - at))
            at = stop
    content = b"".join(pieces)
    return content if len(content) == end - span[0] else None


def _go_to(file: BinaryIO, offset: int) -> None:
    if file.seekable():
        file.seek(offset)
        return
    left = offset - file.tell()
    if left < 0:
        raise ValueError("spans are not in order")
    while left > 0 and (passed := len(file.read(min(left, 1 << 20)))):
        left -= passed
