"""What an ELF file says about itself: machine, build ID, and the processor it needs. Files are untrusted.

Sources: System V ABI (ELF header, program headers), x86-64 psABI 1.0 "Program Property" (GNU_PROPERTY_X86_ISA_1_NEEDED
and its levels), AArch64 ELF ABI; criu/files-reg.c looks for build IDs in the first mebibyte as well. These
are three structures of fixed layout; pyelftools would load Python's debugger too, 6 MiB in the node's worker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Final, Literal

HEAD_BYTES: Final = 1 << 20
"""How much of a file's start is looked at: linkers put the notes among the first pages."""
SEGMENTS_MAX: Final = 64
NOTES_MAX: Final = 64
NOTE_BYTES_MAX: Final = 16 << 10

Head = bytes | mmap

IsaLevel = Literal["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
_LEVELS: Final[tuple[IsaLevel, ...]] = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")
_PROPERTY_ISA_NEEDED: Final = 0xC0008002
"""Not 0xC0000000 and 0xC0000001 of binutils before 2.36, whose bits meant something else."""
_PT_NOTE: Final = 4
_NT_PROPERTY, _NT_BUILD_ID = 5, 3

_MACHINES: Final = {
    3: "i386",
    8: "mips",
    21: "ppc64",
    22: "s390",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
"""e_machine."""


@dataclass(frozen=True, slots=True)
class ElfFacts:
    machine: str
    """As CRIU names it (Task.machine); ``unknown`` for others."""
    bits: int
    build_id: str | None
    """Lower-case hexadecimal."""
    isa_level: IsaLevel | None
    """The lowest x86-64 level that has all the file says it needs; None when it does not say."""


def read_elf(head: Head) -> ElfFacts | None:
    """Reads the facts from the file's first bytes, HEAD_BYTES at most; None when they are no sound ELF file.

    Raises nothing: what is malformed, or lies beyond the bytes given, is unknown.
    """
    if head[:4] != b"\x7fELF" or len(head) < 52:
        return None
    try:
        return _read(head)
    except (struct.error, KeyError, OverflowError):
        return None


def _read(head: Head) -> ElfFacts | None:
    bits, little = {1: 32, 2: 64}[head[4]], {1: True, 2: False}[head[5]]
    order = "<" if little else ">"
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    build_id = level = None
    for kind, content in _notes(head, order, bits):
        if kind == _NT_BUILD_ID and 0 < len(content) <= 64:
            build_id = build_id or content.hex()
        elif kind == _NT_PROPERTY:
            level = level or _isa_level(content, little, bits)
    name = _MACHINES.get(machine, "unknown")
    return ElfFacts(name, bits, build_id, level if name == "x86_64" else None)


def _segments(head: Head, order: str, bits: int) -> Iterator[tuple[int, int, int]]:
    """Offset, size and alignment of each note segment that lies within the bytes given."""
    where, counts = ("Q", 54) if bits == 64 else ("I", 42)
    (start,) = struct.unpack_from(f"{order}{where}", head, 32 if bits == 64 else 28)
    size, number = struct.unpack_from(f"{order}2H", head, counts)
    if number > SEGMENTS_MAX:
        raise struct.error("too many segments")
    for at in range(start, start + number * size, size or 1):
        if bits == 64:
            kind, offset, length, alignment = struct.unpack_from(f"{order}I4xQ16xQ8xQ", head, at)
        else:
            kind, offset, length, alignment = struct.unpack_from(f"{order}2I8xI8xI", head, at)
        if kind == _PT_NOTE and length <= NOTE_BYTES_MAX and offset + length <= len(head):
            yield offset, length, alignment


def _notes(head: Head, order: str, bits: int) -> Iterator[tuple[int, bytes]]:
    """Type and content of each note of GNU's."""
    count = 0
    for offset, length, alignment in _segments(head, order, bits):
        unit = 8 if alignment == 8 else 4
        at, end = offset, offset + length
        while at + 12 <= end:
            count += 1
            if count > NOTES_MAX:
                raise struct.error("too many notes")
            name_size, size, kind = struct.unpack_from(f"{order}3I", head, at)
            content = at + _rounded(12 + name_size, unit)
            if head[at + 12 : at + 12 + name_size] == b"GNU\0" and content + size <= end:
                yield kind, head[content : content + size]
            at = content + _rounded(size, unit)


def _rounded(size: int, unit: int) -> int:
    return (size + unit - 1) // unit * unit


def _isa_level(properties: bytes, little: bool, bits: int) -> IsaLevel | None:
    """``pr_type``, ``pr_datasz``, then the content, padded to the file's word."""
    order, word = "<" if little else ">", bits // 8
    offset = 0
    while offset + 8 <= len(properties):
        kind, size = struct.unpack_from(f"{order}2I", properties, offset)
        if kind == _PROPERTY_ISA_NEEDED and size == 4 and offset + 12 <= len(properties):
            (needed,) = struct.unpack_from(f"{order}I", properties, offset + 8)
            # bit 0 is the baseline, bits 1 to 3 the levels 2 to 4; a newer bit is at least the highest known
            return _LEVELS[min(int(needed).bit_length(), len(_LEVELS)) - 1] if needed else None
        offset += 8 + (size + word - 1) // word * word
    return None
