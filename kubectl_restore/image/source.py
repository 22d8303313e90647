"""Where a blob's bytes come from: each source knows its size and can be read again from any offset.

Reading again is what lets an interrupted upload go on; knowing the size is what lets an OCI archive or a request be
written in one pass. Failures to read are RestoreErrors, never OSError, so that no network code takes them for its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from shared.errors import CheckpointInvalid, RestoreError

PIECE_BYTES: Final = 256 << 10
"""Fits the processor's second-level cache, so that hashing and writing the same piece reads memory once."""

_COPY_BYTES: Final = 8 << 20
_CANNOT_COPY: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


class Stream(Protocol):
    """A source whose size may show at its end only."""

    @property
    def size(self) -> int | None:
        """Bytes in all, None when not known yet."""

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """The bytes from ``offset`` to the end, in pieces of ``piece_bytes`` at most."""


class Source(Protocol):
    @property
    def size(self) -> int:
        """Bytes in all."""

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """The bytes from ``offset`` to the end, in pieces of ``piece_bytes`` at most."""


@dataclass(frozen=True)
class Literal:
    """Bytes already in memory."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        if offset < len(self.content):
            yield self.content[offset:]


@dataclass(frozen=True)
class FileRange:
    """A part of a regular file that must not change while it is read."""

    path: Path
    start: int
    size: int
    identity: tuple[int, ...]

    @classmethod
    def whole(cls, path: Path) -> FileRange:
        """The file as it is now; raises RestoreError("FileUnreadable")."""
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        return cls(path, 0, status.st_size, _identity(status))

    def part(self, start: int, size: int) -> FileRange:
        return FileRange(self.path, self.start + start, size, self.identity)

    def check_unchanged(self) -> None:
        """Raises CheckpointInvalid("FileChanged") when the file is not the one it was."""
        if FileRange.whole(self.path).identity != self.identity:
            raise _changed(self.path)

    def copy_to(self, file: BinaryIO) -> Iterator[Sized]:
        """Appends the range to ``file`` in the kernel, which may share blocks; every item is as long as its step.

        Where copy_file_range(2) is missing or does not work between the two file systems, it reads and writes.
        Raises as ``pieces`` does, and OSError when ``file`` cannot be written.
        """
        file.flush()
        target, done = file.fileno(), 0
        with self.path.open("rb", buffering=0) as source:
            while done < self.size and hasattr(os, "copy_file_range"):
                try:
                    step = min(_COPY_BYTES, self.size - done)
                    moved = os.copy_file_range(source.fileno(), target, step, self.start + done)
                except OSError as error:
                    if error.errno not in _CANNOT_COPY or done:
                        raise
                    break
                if not moved:
                    raise _changed(self.path)
                done += moved
                yield range(moved)
        if done:
            self.check_unchanged()
            return
        for piece in self.pieces():
            file.write(piece)
            yield piece

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Raises CheckpointInvalid("FileChanged") when the file is not the one it was, before the last piece is out."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        try:
            position, end = self.start + offset, self.start + self.size
            while position < end:
                piece = os.pread(descriptor, min(piece_bytes, end - position), position)
                position += len(piece)
                if not piece or (position == end and _identity(os.fstat(descriptor)) != self.identity):
                    raise _changed(self.path)
                yield piece
        except OSError as error:
            raise _unreadable(self.path, error) from error
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Opened:
    """A stream that can be opened again: a checkpoint's member, a blob in another registry."""

    name: str
    size: int
    open: Callable[[], BinaryIO]

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        with self.open() as file:
            left = self.size - offset
            if offset and file.seekable():
                file.seek(offset)
            elif offset:
                for _ in _read(file, offset, self.name, piece_bytes):
                    pass
            yield from _read(file, left, self.name, piece_bytes)


@dataclass(frozen=True)
class Joined:
    """Sources one after the other."""

    parts: Sequence[Source]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        for part in self.parts:
            if offset < part.size:
                yield from part.pieces(offset, piece_bytes)
            offset = max(0, offset - part.size)


def _read(file: BinaryIO, size: int, name: str, piece_bytes: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(piece_bytes, size))
        if not piece:
            raise CheckpointInvalid("FileTruncated", f"{name} ends {size} bytes early; build the image again")
        size -= len(piece)
        yield piece


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _changed(path: Path) -> CheckpointInvalid:
    return CheckpointInvalid("FileChanged", f"{path} changed while it was read; build the image again")


def _unreadable(path: Path, error: OSError) -> RestoreError:
    return RestoreError("FileUnreadable", f"cannot read {path}: {error.strerror}")
