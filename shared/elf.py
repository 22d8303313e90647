"""What an ELF file says about itself: machine, build ID, and the processor it needs. Files are untrusted.

Sources: System V ABI (ELF header, program headers), x86-64 psABI 1.0 "Program Property" (GNU_PROPERTY_X86_ISA_1_NEEDED
and its levels), AArch64 ELF ABI; criu/files-reg.c looks for build IDs in the first mebibyte as well.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final, Literal

HEAD_BYTES: Final = 1 << 20
"""How much of a file's start is looked at: linkers put the notes among the first pages."""
SEGMENTS_MAX: Final = 64
NOTES_MAX: Final = 64
NOTE_BYTES_MAX: Final = 16 << 10

IsaLevel = Literal["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"]
_LEVELS: Final[tuple[IsaLevel, ...]] = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")
_PROPERTY_ISA_NEEDED: Final = 0xC0008002
"""Not 0xC0000000 and 0xC0000001 of binutils before 2.36, whose bits meant something else."""
_NOTE_BUILD_ID: Final = "NT_GNU_BUILD_ID"
_NOTE_PROPERTY: Final = "NT_GNU_PROPERTY_TYPE_0"

_MACHINES: Final = {
    "EM_X86_64": "x86_64",
    "EM_386": "i386",
    "EM_ARM": "arm",
    "EM_AARCH64": "aarch64",
    "EM_PPC64": "ppc64",
    "EM_S390": "s390",
    "EM_MIPS": "mips",
    "EM_LOONGARCH": "loongarch64",
    "EM_RISCV": "riscv64",
}


@dataclass(frozen=True, slots=True)
class ElfFacts:
    machine: str
    """As CRIU names it (Task.machine); ``unknown`` for others."""
    bits: int
    build_id: str | None
    """Lower-case hexadecimal."""
    isa_level: IsaLevel | None
    """The lowest x86-64 level that has all the file says it needs; None when it does not say."""


def read_elf(head: bytes) -> ElfFacts | None:
    """Reads the facts from the file's first bytes (HEAD_BYTES are enough); None when they are no sound ELF file.

    Raises nothing: what is malformed, or lies beyond the bytes given, is unknown.
    """
    if not head.startswith(b"\x7fELF") or len(head) < 52:
        return None
    try:
        return _read(head[:HEAD_BYTES])
    except Exception:  # pyelftools raises whatever its parsing stumbles over
        return None


def _read(head: bytes) -> ElfFacts | None:
    # A third of a command's start-up time, needed by few.
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import NoteSegment

    elf = ELFFile(io.BytesIO(_without_sections(head)))
    if elf["e_phnum"] > SEGMENTS_MAX:
        return None
    build_id = level = None
    notes = 0
    for segment in elf.iter_segments():
        if not isinstance(segment, NoteSegment) or segment["p_filesz"] > NOTE_BYTES_MAX:
            continue
        for note in segment.iter_notes():
            notes += 1
            if notes > NOTES_MAX:
                return None
            description = note["n_descdata"]
            if note["n_name"] != "GNU" or len(description) != note["n_descsz"]:
                continue
            if note["n_type"] == _NOTE_BUILD_ID and 0 < len(description) <= 64:
                build_id = build_id or description.hex()
            elif note["n_type"] == _NOTE_PROPERTY:
                level = level or _isa_level(description, elf.little_endian, elf.elfclass)
    machine = _MACHINES.get(str(elf["e_machine"]), "unknown")
    return ElfFacts(machine, elf.elfclass, build_id, level if machine == "x86_64" else None)


def _without_sections(head: bytes) -> bytes:
    """The header without its section table, which lies at the file's end: only segments are read."""
    image = bytearray(head)
    wide = image[4] == 2
    order = "<" if image[5] == 1 else ">"
    if wide:
        struct.pack_into(f"{order}Q", image, 0x28, 0)
        struct.pack_into(f"{order}3H", image, 0x3A, 0, 0, 0)
    else:
        struct.pack_into(f"{order}I", image, 0x20, 0)
        struct.pack_into(f"{order}3H", image, 0x2E, 0, 0, 0)
    return bytes(image)


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
