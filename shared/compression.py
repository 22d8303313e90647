"""Decompresses gzip and zstd forward, a bounded piece at a time, and tells a truncated stream from a whole one.

Sources: RFC 1952 (gzip members may follow each other), RFC 8878 (zstd frames may follow each other).
"""

from __future__ import annotations

import enum
import zlib
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from shared.errors import CheckpointInvalid

if TYPE_CHECKING:
    import zstandard

_PIECE_BYTES: Final = 256 << 10
_ZSTD_PIECE_BYTES: Final = 1 << 10
"""zstd's decompressor returns all that its input gives: at most 128 KiB for a 4-byte block, 32 MiB for this much."""
_ZSTD_WINDOW_BYTES: Final = 128 << 20


class Compression(enum.Enum):
    """The outer compression of an archive."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


def sniff(start: bytes) -> Compression:
    """The compression that the first four bytes of a file announce."""
    if start.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    if start == b"\x28\xb5\x2f\xfd" or (start[1:] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50):
        return Compression.ZSTD
    return Compression.NONE


class Source(Protocol):
    """Where the compressed bytes come from, forward only."""

    def read(self, size: int, /) -> bytes | None:
        """Up to ``size`` bytes, none at the end."""

    def close(self) -> None:
        """Called once."""


class Decompressed:
    """The decompressed bytes of a file, forward only; owns ``source``.

    Raises CheckpointInvalid: ArchiveTruncated when the compressed stream stops early, ArchiveDamaged when it is not
    one, ArchiveTooLarge past ``limit_bytes``.
    """

    def __init__(self, source: Source, compression: Compression, archive: str, *, limit_bytes: int) -> None:
        self._source: Source | None = source
        self._limit = limit_bytes
        self._archive = archive
        self._offset = 0
        self._decoder: _Decoder = _Gzip() if compression is Compression.GZIP else _Zstd()
        self._ready = memoryview(b"")
        self._total = 0

    def read_exactly(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end of the stream."""
        pieces = []
        while size and self._fill():
            pieces.append(self._ready[:size])
            self._ready = self._ready[size:]
            size -= len(pieces[-1])
        return b"".join(pieces)

    def skip(self, size: int) -> int:
        """Moves on and returns how many bytes there were."""
        moved = 0
        while moved < size and self._fill():
            step = min(size - moved, len(self._ready))
            self._ready = self._ready[step:]
            moved += step
        return moved

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self) -> bool:
        """Makes at least one byte ready, unless the stream is over."""
        while not self._ready:
            try:
                piece = self._decoder.more()
                if piece is None and not self._feed():
                    return False
            except self._decoder.failure as error:
                raise CheckpointInvalid("ArchiveDamaged", f"{self._archive} does not decompress: {error}") from error
            self._ready = memoryview(piece or b"")
            self._total += len(self._ready)
            if self._total > self._limit:
                raise CheckpointInvalid("ArchiveTooLarge", f"{self._archive} unpacks to more than {self._limit} bytes")
        return True

    def _feed(self) -> bool:
        if self._source is None:
            raise ValueError("read after close")
        compressed = self._source.read(self._decoder.piece_bytes) or b""
        self._offset += len(compressed)
        if compressed:
            self._decoder.feed(compressed)
            return True
        if self._decoder.whole:
            return False
        raise CheckpointInvalid(
            "ArchiveTruncated", f"{self._archive} ends at byte {self._offset} in the middle of compressed data"
        )


class _Decoder(Protocol):
    @property
    def failure(self) -> type[Exception]:
        """What it raises for a stream that is not of its kind."""

    @property
    def piece_bytes(self) -> int:
        """How much input to feed at once."""

    @property
    def whole(self) -> bool:
        """Whether the stream may end here."""

    def feed(self, compressed: bytes) -> None:
        """Takes more input; only when more() gave None."""

    def more(self) -> bytes | None:
        """The next piece, None when input is needed."""


class _Gzip:
    failure = zlib.error
    piece_bytes = _PIECE_BYTES

    def __init__(self) -> None:
        self._input = b""
        self._member = zlib.decompressobj(31)
        self._started = False
        self._members = 0

    @property
    def whole(self) -> bool:
        return not self._started and self._members > 0

    def feed(self, compressed: bytes) -> None:
        self._input = compressed

    def more(self) -> bytes | None:
        if not self._input:
            return None
        if not self._started and self._members and not self._input.strip(b"\0"):
            self._input = b""  # gzip(1) lets zeros follow, for tapes
            return None
        self._started = True
        piece = self._member.decompress(self._input, _PIECE_BYTES)
        self._input = self._member.unconsumed_tail
        if self._member.eof:
            self._input = self._member.unused_data
            self._member = zlib.decompressobj(31)
            self._started = False
            self._members += 1
        return piece


class _Zstd:
    piece_bytes = _ZSTD_PIECE_BYTES

    def __init__(self) -> None:
        import zstandard  # only here: most archives are not compressed, and the daemon is to stay small

        self.failure: type[Exception] = zstandard.ZstdError
        self._input = b""
        self._frame = self._new_frame()
        self._started = False
        self._frames = 0

    @property
    def whole(self) -> bool:
        return not self._started and self._frames > 0

    def feed(self, compressed: bytes) -> None:
        self._input = compressed

    def more(self) -> bytes | None:
        if not self._input:
            return None
        self._started = True
        piece = self._frame.decompress(self._input)
        self._input = b""
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = self._new_frame()
            self._started = False
            self._frames += 1
        return piece

    @staticmethod
    def _new_frame() -> zstandard.ZstdDecompressionObj:
        import zstandard

        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
