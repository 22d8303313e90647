"""Compresses and decompresses layers while they are read.

Compression runs on all processors, in blocks that stand for themselves: each becomes a gzip member or a zstd frame of
its own. Both may follow each other (RFC 1952 section 2.2, RFC 8878 section 3), and container runtimes read such layers
daily: eStargz and zstd:chunked are made so. The result does not depend on the number of processors, and an interrupted
upload goes on with the block it broke off in.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Final

from kubectl_restore.image.source import PIECE_BYTES, Stream
from shared.compression import Compression

if TYPE_CHECKING:
    from shared.compression import Decompressed

BLOCK_BYTES: Final = 1 << 20
"""Larger blocks gain 1 percent at most, and memory is taken for a few on each processor."""
_WORKERS_MAX: Final = 8
"""One thread hashes what all compress; more than these outrun it."""
_GZIP_LEVEL: Final = 1
"""ISA-L's fastest that still compresses: about what zlib's level 1 gives, at four times its rate and more."""
_ZSTD_LEVEL: Final = 3
"""zstd's own default."""
_DECOMPRESSED_BYTES_MAX: Final = 1 << 40


class Compressing:
    """A stream compressed while it is read; ``plain_hash`` has seen all of ``plain`` once all of it has been."""

    size: None = None

    def __init__(self, plain: Stream, compression: Compression) -> None:
        self.plain = plain
        self.plain_hash = hashlib.sha256()
        self._compress = _gzip if compression is Compression.GZIP else _zstd
        self._workers = min(os.cpu_count() or 1, _WORKERS_MAX)
        self._hashed = 0
        self._starts = [0]
        """Where in the compressed stream each block begins that has been come to so far."""

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        first = bisect_right(self._starts, offset) - 1
        position = self._starts[first]
        with closing(self._compressed(first)) as blocks:
            for number, block in enumerate(blocks, first + 1):
                begin, position = position, position + len(block)
                if number == len(self._starts):
                    self._starts.append(position)
                for start in range(max(0, offset - begin), len(block), piece_bytes):
                    yield block[start : start + piece_bytes]

    def _compressed(self, first: int) -> Generator[bytes, None, None]:
        with ThreadPoolExecutor(self._workers, "compress") as pool, closing(self._blocks(first)) as blocks:
            pending: deque[Future[bytes]] = deque()
            for block in blocks:
                pending.append(pool.submit(self._compress, block))
                if len(pending) > self._workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _blocks(self, first: int) -> Generator[bytes, None, None]:
        """Blocks of BLOCK_BYTES, a shorter one at the end; one at least, for nothing is a stream too."""
        position = first * BLOCK_BYTES
        for block in _in_blocks(self.plain.pieces(position, BLOCK_BYTES), empty=first == 0):
            if position >= self._hashed:
                self.plain_hash.update(block)
                self._hashed += len(block)
            position += len(block)
            yield block


class Decompressing:
    """The content of a compressed source."""

    size: None = None

    def __init__(self, source: Stream, compression: Compression, name: str) -> None:
        self._source = source
        self._compression = compression
        self._name = name

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Raises CheckpointInvalid: ArchiveDamaged, ArchiveTruncated, ArchiveTooLarge."""
        with self._opened() as plain:
            plain.skip(offset)
            while piece := plain.read_exactly(piece_bytes):
                yield piece

    def _opened(self) -> Decompressed:
        from shared.compression import Decompressed

        reader = _Reader(self._source.pieces())
        return Decompressed(reader, self._compression, self._name, limit_bytes=_DECOMPRESSED_BYTES_MAX)


class _Reader:
    """Pieces as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def read(self, size: int, /) -> bytes:
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        found = self._piece[self._at : self._at + size]
        self._at += len(found)
        return found

    def close(self) -> None:
        self._pieces = iter(())


def _in_blocks(pieces: Iterator[bytes], *, empty: bool) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        while size + len(piece) >= BLOCK_BYTES:
            taken = BLOCK_BYTES - size
            yield b"".join((*waiting, piece[:taken])) if waiting else piece[:taken]
            piece, waiting, size = piece[taken:], [], 0
            empty = False
        if piece:
            waiting.append(piece)
            size += len(piece)
    if waiting or empty:
        yield b"".join(waiting)


def _gzip(block: bytes) -> bytes:
    from isal import isal_zlib

    member: bytes = isal_zlib.compress(block, _GZIP_LEVEL, 16 + 15)
    return member


def _zstd(block: bytes) -> bytes:
    import zstandard

    # A compressor serves one thread at a time, and making one is cheap beside a block.
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(block)
