"""Digests of a stream, computed on a thread of their own while the same bytes are written or sent."""

from __future__ import annotations

import hashlib
import io
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from kubectl_restore.image.progress import Piece
from kubectl_restore.image.source import PIECE_BYTES, Stream
from shared.compression import Compression
from shared.errors import CheckpointInvalid, RestoreError

_AHEAD: Final = 16
"""Pieces the reader may be ahead of the hash: 4 MiB in all, whatever the blob's size."""
LEAD_BYTES: Final = 512 << 20
"""How far ahead of the writer bytes may be hashed; it must find them in memory still."""
_AHEAD_PIECE_BYTES: Final = 2 << 20
_SWITCH_INTERVAL_S: Final = 0.0005
_ZSTD_WINDOW_BYTES: Final = 128 << 20
"""The largest window that zstd itself decompresses without being told to (zstd(1), --long)."""


@dataclass(frozen=True)
class Measured:
    """What a layer's descriptor and the image config need to know; ``diff_id`` is of the uncompressed stream."""

    digest: str
    diff_id: str
    size: int


class Measurement:
    """Hashes everything that passes through ``tee``; a context manager, so that its thread always ends."""

    def __init__(self, compression: Compression = Compression.NONE, *, plain_hash: hashlib._Hash | None = None) -> None:
        """``compression`` is undone for the diff ID, unless whoever compresses has it in ``plain_hash`` at the end."""
        self._pending: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._compression = compression
        self._fed = 0
        self._raw = hashlib.sha256()
        own = hashlib.sha256() if compression is not Compression.NONE else self._raw
        self._plain = plain_hash or own
        self._error: CheckpointInvalid | None = None
        self._thread = threading.Thread(target=self._hash, name="measure", daemon=True)
        self._thread.start()

    def tee(self, pieces: Iterator[bytes], offset: int = 0) -> Iterator[bytes]:
        """Passes ``pieces`` on; what a repeated upload sends again from ``offset`` is hashed only once."""
        for piece in pieces:
            known = self._fed - offset
            offset += len(piece)
            if known < len(piece):
                fresh = piece[known:] if known else piece
                self._fed += len(fresh)
                self._pending.put(fresh)
            yield piece

    def result(self) -> Measured:
        """Waits for the last piece; raises CheckpointInvalid("LayerDamaged") when it does not decompress."""
        self._end()
        if self._error:
            raise self._error
        return Measured(f"sha256:{self._raw.hexdigest()}", f"sha256:{self._plain.hexdigest()}", self._fed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._pending.put(None)
            self._thread.join()

    def _hash(self) -> None:
        compressed = _Compressed(self._pending, self._raw)
        try:
            if self._compression is Compression.GZIP:
                _hash_gzip(compressed, self._plain)
            elif self._compression is Compression.ZSTD:
                _hash_zstd(compressed, self._plain)
        except CheckpointInvalid as error:
            self._error = error
        finally:
            compressed.drain()


class Ahead:
    """Hashes a source by reading it itself, beginning before whoever writes the same bytes is ready to.

    Loading the rest of the program and finding the base image take as long as a good part of the digest of a large
    archive. For files on this machine only: the writer then reads the same bytes from the page cache, which is why the
    hash never runs further ahead of it than LEAD_BYTES. A context manager, so that its thread always ends.
    """

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self._position = 0
        self._allowed = LEAD_BYTES
        self._stopped = False
        self._moved = threading.Condition()
        self._error: RestoreError | None = None
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        # The thread needs the interpreter only between pieces; imports would keep it waiting 5 ms each time.
        self._interval_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._moved:
            self._stopped = True
            self._moved.notify()
        self._thread.join()
        sys.setswitchinterval(self._interval_s)

    def tee(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Passes the writer's ``pieces`` on, and lets the hash go on as far."""
        for piece in pieces:
            with self._moved:
                self._allowed += len(piece)
                self._moved.notify()
            yield piece

    def result(self) -> Measured:
        """Waits for the end; raises what reading the source raised."""
        self._thread.join()
        if self._error:
            raise self._error
        digest = f"sha256:{self._hash.hexdigest()}"
        return Measured(digest, digest, self._position)

    def _run(self) -> None:
        try:
            for piece in self._source.pieces(0, _AHEAD_PIECE_BYTES):
                with self._moved:
                    self._moved.wait_for(lambda: self._stopped or self._position < self._allowed)
                if self._stopped:
                    return
                self._hash.update(piece)
                self._position += len(piece)
        except RestoreError as error:
            self._error = error


class _Compressed(io.RawIOBase):
    """The queue as a file; hashes what it gives out."""

    def __init__(self, pending: queue.Queue[bytes | None], raw: hashlib._Hash) -> None:
        self._pending = pending
        self._raw = raw
        self._rest = memoryview(b"")
        self._over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._rest and not self._next():
            return 0
        target = memoryview(buffer)
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def drain(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        if self._over or (piece := self._pending.get()) is None:
            self._over = True
            return False
        self._raw.update(piece)
        self._rest = memoryview(piece)
        return True


# The modules of both are loaded for a compressed layer only: most are not, and a build is to start hashing at once.


def _hash_gzip(compressed: _Compressed, plain: hashlib._Hash) -> None:
    import gzip
    import zlib

    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(compressed, PIECE_BYTES)) as content:
            while piece := content.read(PIECE_BYTES):
                plain.update(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(error) from error


def _hash_zstd(compressed: _Compressed, plain: hashlib._Hash) -> None:
    """Frames may follow each other; input goes in by the KiB because a 4-byte block may give 128 KiB at once."""
    import zstandard

    frame = None
    try:
        while piece := compressed.read(1 << 10):
            while piece:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
                plain.update(frame.decompress(piece))
                piece = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise _damaged(error) from error
    if frame:
        raise _damaged("it ends in the middle of a frame")


def _damaged(why: object) -> CheckpointInvalid:
    return CheckpointInvalid("LayerDamaged", f"a compressed layer does not decompress: {why}")
