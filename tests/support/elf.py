"""Makes the start of ELF files for tests: a header, note segments, and whatever is to be wrong with them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64 = 62
AARCH64 = 183
NT_BUILD_ID = 3
NT_PROPERTIES = 5
ISA_NEEDED = 0xC0008002


def note(kind: int, content: bytes, name: bytes = b"GNU\0") -> bytes:
    padded = content + bytes(-len(content) % 4)
    return struct.pack("<3I", len(name), len(content), kind) + name + bytes(-len(name) % 4) + padded


def isa_needed(bits: int) -> bytes:
    return note(NT_PROPERTIES, struct.pack("<4I", ISA_NEEDED, 4, bits, 0))


def elf(notes: Sequence[bytes] = (), *, machine: int = X86_64, size: int | None = None) -> bytes:
    """A 64-bit little-endian file with one note segment for each of ``notes``; padded to ``size`` bytes."""
    offset = 64 + 56 * len(notes)
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 3, machine, 1, 0, 64, 0, 0, 64, 56, len(notes), 64, 0, 0
    )
    segments = b""
    for each in notes:
        segments += struct.pack("<IIQQQQQQ", 4, 4, offset, 0, 0, len(each), len(each), 4)
        offset += len(each)
    content = header + segments + b"".join(notes)
    return content.ljust(size or 0, b"\0")
