"""The kernel's vdso as a dump has it: programs that CRIU patches where it is not the node's.

CRIU looks for functions in it by name and writes a jump where each begins (criu/pie/util-vdso.c, parse_elf_symbols,
criu/pie/parasite-vdso.c, add_vdso_proxy). It does not look whether that is in the vdso, nor whether the table of names
has an end, while it has root's rights and lies in the same address space.
Sources: elf(5), System V ABI (Hash Table Section), criu/arch/*/vdso-pie.c (insert_trampoline).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

_PREFIXES: Final = (b"__vdso_", b"__kernel_")
"""How the names of all functions begin that CRIU looks for (criu/arch/*/include/asm/vdso.h)."""
_JUMP_BYTES: Final = 32
"""More than CRIU writes at any of them."""
_PT_LOAD, _PT_DYNAMIC = 1, 2
_STRTAB, _SYMTAB, _HASH = 5, 6, 4


class _Layout(NamedTuple):
    word: int
    """Bytes of an address."""
    table: int
    """Where the header says where the program headers are; their number is at ``headers``."""
    headers: int
    header: str
    """Of a program header: type, offset, virtual address, size in the file."""
    dynamic: str
    symbol: str
    """Name, value; what lies between is skipped."""


_LAYOUTS: Final = {
    1: _Layout(4, 28, 44, "I I I 4x I 12x", "I I", "I I 8x"),
    2: _Layout(8, 32, 56, "I 4x Q Q 8x Q 16x", "Q Q", "I 4x Q 8x"),
}
"""By ELF class."""


@lru_cache(maxsize=16)
def vdso_flaw(content: bytes, *, big_endian: bool = False, hash_bytes: int = 4) -> str | None:
    """Why CRIU must not be given this vdso, as the rest of a sentence; None: it finds nothing outside of it.

    ``hash_bytes``: of an entry of the hash table, 8 on s390.
    """
    try:
        return _flaw(content, ">" if big_endian else "<", hash_bytes)
    except (struct.error, KeyError, IndexError, StopIteration):
        return "is no ELF file that CRIU could read"


def _flaw(content: bytes, order: str, hash_bytes: int) -> str | None:
    if content[:4] != b"\x7fELF":
        return "is no ELF file"
    layout = _LAYOUTS[content[4]]
    headers = _headers(content, order, layout)
    (_, base, _) = headers[_PT_LOAD]
    dynamic = _dynamic(content, order, layout, headers[_PT_DYNAMIC])
    names, symbols = dynamic[_STRTAB] - base, dynamic[_SYMTAB] - base
    if not 0 <= names < len(content) or not 0 <= symbols < len(content):
        return "has its names elsewhere"
    size = struct.calcsize(order + layout.symbol)
    end = len(content)
    if _HASH in dynamic:
        count = _symbols(content, order, dynamic[_HASH] - base, hash_bytes)
        if count is None:
            return "has a table of names in which CRIU would search for ever"
        end = min(end, symbols + count * size)
    # Which ones the table leads to need not be what the linker meant: each may be one.
    for place in range(symbols, end - size + 1, size):
        name, value = struct.unpack_from(order + layout.symbol, content, place)
        if (
            value
            and content.startswith(_PREFIXES, names + name)
            and not 0 <= value - base <= len(content) - _JUMP_BYTES
        ):
            return f"has a function at {value:#x}, which is outside of it"
    return None


def _headers(content: bytes, order: str, layout: _Layout) -> dict[int, tuple[int, int, int]]:
    """Offset, virtual address and size by type; CRIU refuses two of a type that matters."""
    form = order + layout.header
    (start,) = struct.unpack_from(order + ("Q" if layout.word == 8 else "I"), content, layout.table)
    (count,) = struct.unpack_from(order + "H", content, layout.headers)
    size = struct.calcsize(form)
    found: dict[int, tuple[int, int, int]] = {}
    for number in range(count):
        kind, offset, address, length = struct.unpack_from(form, content, start + number * size)
        found.setdefault(kind, (offset, address, length))
    return found


def _dynamic(content: bytes, order: str, layout: _Layout, header: tuple[int, int, int]) -> dict[int, int]:
    """Values by tag, the last of each as CRIU takes it."""
    offset, _, length = header
    form = order + layout.dynamic
    size = struct.calcsize(form)
    found: dict[int, int] = {}
    for number in range(length // size):
        tag, value = struct.unpack_from(form, content, offset + number * size)
        if not tag:
            break
        found[tag] = value
    return found


def _symbols(content: bytes, order: str, start: int, word: int) -> int | None:
    """How many symbols the hash table has; None unless each of its chains comes to its end within the vdso."""
    form = order + ("Q" if word == 8 else "I")
    limit = len(content) // word

    def entry(number: int) -> int:
        place = start + number * word
        if not 0 <= place < len(content):
            raise IndexError
        (found,) = struct.unpack_from(form, content, place)
        return int(found)

    buckets, chains = entry(0), entry(1)
    if not 0 < buckets <= limit or chains > limit:
        return None
    left = limit  # a symbol is in one chain
    for bucket in range(buckets):
        at = entry(2 + bucket)
        while 0 < at < chains:
            left -= 1
            if left < 0:
                return None
            at = entry(2 + buckets + at)
    return chains
