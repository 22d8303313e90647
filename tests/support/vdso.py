"""A vdso as a kernel makes it, with one function; and the same with something wrong in it."""

from __future__ import annotations

import struct

SIZE = 8192
_NAMES, _SYMBOLS, _HASH, _DYNAMIC = 0x300, 0x400, 0x500, 0x600


def made_vdso(
    word: int = 8,
    *,
    value: int = 0x900,
    base: int = 0,
    shift: int = 0,
    symbols: int = _SYMBOLS,
    chain: int = 0,
    chains: int = 2,
    buckets: int = 1,
    magic: bytes = b"\x7fELF",
    headers: int = 2,
) -> bytes:
    """``word``: bytes of an address. ``base``: where it says it begins; ``shift``: added to its other addresses."""
    content = bytearray(SIZE)
    content[:6] = magic + bytes([word // 4, 1])
    numbers = [(1, 0, base, SIZE), (2, _DYNAMIC, base + _DYNAMIC, 5 * 2 * word)]
    if word == 8:
        struct.pack_into("<Q", content, 32, 64)
        struct.pack_into("<H", content, 56, headers)
        for at, (kind, offset, address, size) in enumerate(numbers):
            struct.pack_into("<IIQQQQQQ", content, 64 + 56 * at, kind, 5, offset, address, address, size, size, 8)
        struct.pack_into("<IBBHQQ", content, _SYMBOLS + 24, 1, 0x12, 0, 1, value, 16)
    else:
        struct.pack_into("<I", content, 28, 52)
        struct.pack_into("<H", content, 44, headers)
        for at, (kind, offset, address, size) in enumerate(numbers):
            struct.pack_into("<IIIIIIII", content, 52 + 32 * at, kind, offset, address, address, size, size, 5, 4)
        struct.pack_into("<IIIBBH", content, _SYMBOLS + 16, 1, value, 16, 0x12, 0, 1)
    content[_NAMES : _NAMES + 14] = b"\0__vdso_time\0\0"
    struct.pack_into("<IIIII", content, _HASH, buckets, chains, 1, 0, chain)
    tags = [(5, _NAMES + shift), (6, symbols + shift), (4, _HASH + shift), (10, 14), (0, 0)]
    for at, tag in enumerate(tags):
        struct.pack_into("<QQ" if word == 8 else "<II", content, _DYNAMIC + 2 * word * at, *tag)
    return bytes(content)
