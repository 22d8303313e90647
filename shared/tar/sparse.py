"""Maps of the holes in sparse files, in the two forms that GNU tar writes: its own, and version 1.0 of PAX.

Source: GNU tar manual, "Storing Sparse Files". A map that does not fit the file is refused, because programs that
read one differ in what they do about it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Final

from shared.tar.header import BLOCK_BYTES, Header, number
from shared.tar.pax import Extension
from shared.tar.unsound import Ambiguous, Damaged

_PIECES_MAX: Final = 1 << 20
_DIGITS: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_STAND_IN: Final = re.compile(rb"(.*/)?GNUSparseFile\.[0-9]+/[^/]+")

Take = Callable[[], bytes]
"""Gives the next block of the archive."""


def pass_gnu_map(header: Header, take: Take) -> None:
    """Reads the map in a header with the flag ``S`` and in the blocks after it; raises Damaged, Ambiguous."""
    pieces = _Pieces(number(header.block[483:495], "size of a sparse file"))
    more = pieces.add_table(header.block[386:482], header.block[482])
    while more:
        block = take()
        if block[505:].strip(b"\0"):
            raise Ambiguous("it has bytes after its map of holes")
        more = pieces.add_table(block[:504], block[504])
    pieces.check(header.size)


def pax_name(extension: Extension, header: Header) -> bytes:
    """The name of a sparse file of PAX 1.0, for which another one stands in for programs that know no holes."""
    described = extension.sparse or {}
    if (described["major"], described["minor"]) != (b"1", b"0"):
        raise Ambiguous("it is a sparse file of another version than 1.0")
    name, stand_in = described["name"], extension.name or header.name
    if not _STAND_IN.fullmatch(stand_in) or b"\0" in name:
        raise Ambiguous("it is a sparse file with a name that GNU tar does not write")
    if not posixpath.basename(name).startswith(posixpath.basename(stand_in)):
        raise Ambiguous("it is a sparse file with two names")
    return name


def pass_pax_map(extension: Extension, size: int, take: Take) -> int:
    """Reads the map at the start of a member's content; returns its bytes. Raises Damaged, Ambiguous."""
    described = extension.sparse or {}
    pieces = _Pieces(_decimal(described["realsize"]))
    text = _Lines(take, size)
    count = _decimal(text.line())
    if count > _PIECES_MAX:
        raise Damaged(f"it is a sparse file of {count} pieces")
    for _ in range(count):
        pieces.add(_decimal(text.line()), _decimal(text.line()))
    if text.rest.strip(b"\0"):
        raise Ambiguous("it has bytes after its map of holes")
    pieces.check(size - text.taken)
    return text.taken


class _Lines:
    """The lines at the start of a member's content, read block by block."""

    def __init__(self, take: Take, size: int) -> None:
        self._take = take
        self._size = size
        self.taken = 0
        self.rest = b""

    def line(self) -> bytes:
        while b"\n" not in self.rest:
            if self.taken + BLOCK_BYTES > self._size or len(self.rest) > BLOCK_BYTES:
                raise Damaged("it is a sparse file without a whole map of holes")
            self.rest += self._take()
            self.taken += BLOCK_BYTES
        line, _, self.rest = self.rest.partition(b"\n")
        return line


class _Pieces:
    """The pieces of a sparse file that are no holes."""

    def __init__(self, real_bytes: int) -> None:
        self._real_bytes = real_bytes
        self._end = 0
        self._bytes = 0
        self._count = 0
        self._over = False

    def add_table(self, table: bytes, more: int) -> int:
        """Pieces in GNU's own format: 12 bytes each for offset and size; ``more`` says whether others follow."""
        for at in range(0, len(table), 24):
            entry = table[at : at + 24]
            if not entry.strip(b"\0"):
                self._over = True
            elif self._over:
                raise Ambiguous("its map of holes goes on after its end")
            else:
                self.add(number(entry[:12], "offset of a piece"), number(entry[12:], "size of a piece"))
        if more not in (0, 1) or (more and self._over):
            raise Ambiguous("its map of holes goes on after its end")
        return more

    def add(self, offset: int, size: int) -> None:
        self._count += 1
        if self._count > _PIECES_MAX or offset < self._end:
            raise Damaged("its map of holes has too many pieces, or some in the wrong order")
        self._end = offset + size
        self._bytes += size

    def check(self, stored_bytes: int) -> None:
        if self._end > self._real_bytes or self._bytes != stored_bytes:
            raise Damaged("its map of holes does not fit its content")


def _decimal(digits: bytes) -> int:
    if not _DIGITS.fullmatch(digits):
        raise Damaged("its map of holes has no valid number")
    return int(digits)
