"""A checkpoint's files, from a tar archive (plain, gzip, zstd) or an unpacked directory, read where they are.

A checkpoint is hostile input. Nothing is unpacked; only regular files are read; no symbolic link is ever followed
below the path that was given; names, counts and sizes are bounded. Every failure is CheckpointInvalid.
Formats: containerd, CRI-O and Podman (the outer compression is not recorded anywhere, so it is sniffed).
"""

from __future__ import annotations

import errno
import io
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, cast

from shared.checkpoint_files import CheckpointFiles, Window, unreadable
from shared.compression import Compression, Decompressed, sniff
from shared.errors import CheckpointInvalid
from shared.member_names import normalised, quoted
from shared.tar import CHECKPOINT, MemberWalk, TarMember
from shared.unpacked import UnpackedDirectory

__all__ = ["CheckpointFiles", "Compression", "PlainStream", "open_checkpoint"]

DECOMPRESSED_BYTES_MAX: Final = 1 << 40
KEPT_FILE_BYTES: Final = 4 << 20
"""Files up to this size stay in memory while a compressed archive is passed once …"""
KEPT_BYTES: Final = 64 << 20
"""… up to this much in all."""


def open_checkpoint(path: Path, *, subdirectory: str = "") -> CheckpointFiles:
    """Opens an archive or an unpacked directory; ``subdirectory`` is where in it the checkpoint lies.

    ``path`` itself must not be a symbolic link; the folders above it are the caller's.
    Raises CheckpointInvalid: CheckpointUnreadable, Archive…, Member….
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CheckpointInvalid("CheckpointUnreadable", f"{path} is a symbolic link; name its target") from error
        raise unreadable(str(path), error) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            return UnpackedDirectory(path, descriptor, subdirectory)
        if not stat.S_ISREG(mode):
            raise CheckpointInvalid("CheckpointUnreadable", f"{path} is neither a file nor a directory")
        compression = sniff(os.pread(descriptor, 4, 0))
        if compression is Compression.NONE:
            return _PlainArchive(path, descriptor, subdirectory)
        return _CompressedArchive(path, descriptor, subdirectory, compression)
    except OSError as error:
        os.close(descriptor)
        raise unreadable(str(path), error) from error
    except BaseException:
        os.close(descriptor)
        raise


class _Archive(CheckpointFiles):
    """What plain and compressed archives share: an index made in one pass."""

    def __init__(self, path: Path, descriptor: int, subdirectory: str) -> None:
        self.path = path
        self._descriptor = descriptor
        self._files: dict[str, TarMember] = {}
        inside = normalised(subdirectory, str(path))
        self._prefix = f"{inside}/" if inside else ""

    def _keep(self, member: TarMember) -> str | None:
        if member.kind == "directory" or not member.name.startswith(self._prefix):
            return None
        name = member.name[len(self._prefix) :]
        self._files[name] = member
        return name

    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def size(self, name: str) -> int:
        return self._member(name).size

    def written_at(self, name: str) -> datetime | None:
        seconds = self._member(name).modified
        try:
            return datetime.fromtimestamp(seconds, UTC) if seconds else None
        except (OverflowError, OSError, ValueError):
            return None

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _member(self, name: str) -> TarMember:
        if (member := self._files.get(name)) is None:
            raise self._missing(name)
        return member


class _PlainArchive(_Archive):
    """Headers are read once, contents by pread: constant memory, any order, any size."""

    def __init__(self, path: Path, descriptor: int, subdirectory: str) -> None:
        super().__init__(path, descriptor, subdirectory)
        for member in MemberWalk(PlainStream(descriptor), str(path), CHECKPOINT).members():
            self._keep(member)

    def open(self, name: str) -> BinaryIO:
        member = self._member(name)
        window = Window(os.dup(self._descriptor), member.offset, member.size, f"{quoted(name)} of {self.path}")
        return cast(BinaryIO, io.BufferedReader(window, 256 << 10))


class _CompressedArchive(_Archive):
    """One pass finds the names and keeps the small files; a large file is decompressed anew, from the start."""

    def __init__(self, path: Path, descriptor: int, subdirectory: str, compression: Compression) -> None:
        super().__init__(path, descriptor, subdirectory)
        self.compression = compression
        self._kept: dict[str, bytes] = {}
        kept_bytes = 0
        with _decompressed(descriptor, compression, str(path)) as stream:
            walk = MemberWalk(stream, str(path), CHECKPOINT)
            for member in walk.members():
                name = self._keep(member)
                if name is not None and member.size <= min(KEPT_FILE_BYTES, KEPT_BYTES - kept_bytes):
                    self._kept[name] = walk.content()
                    kept_bytes += member.size

    def open(self, name: str) -> BinaryIO:
        member = self._member(name)
        if name in self._kept:
            return io.BytesIO(self._kept[name])
        stream = _decompressed(self._descriptor, self.compression, str(self.path))
        try:
            stream.skip(member.offset)
        except BaseException:
            stream.close()
            raise
        return cast(BinaryIO, io.BufferedReader(_Part(stream, member.size, str(self.path)), 256 << 10))


def _decompressed(descriptor: int, compression: Compression, archive: str) -> Decompressed:
    """With a position of its own: several members may be read at once."""
    size = os.fstat(descriptor).st_size
    window = Window(os.dup(descriptor), 0, size, archive)
    return Decompressed(window, compression, archive, limit_bytes=DECOMPRESSED_BYTES_MAX)


class PlainStream:
    """A plain archive as the walk wants it: small reads through a buffer, contents skipped without reading."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._position = 0

    def read_exactly(self, size: int) -> bytes:
        found = os.pread(self._descriptor, size, self._position)  # short at the end of the file only
        self._position += len(found)
        return found

    def skip(self, size: int) -> int:
        moved = min(size, self._size - self._position)
        self._position += moved
        return moved


class _Part(io.RawIOBase):
    """One member of a compressed archive, forward only."""

    def __init__(self, stream: Decompressed, size: int, name: str) -> None:
        self._stream = stream
        self._left = size
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), self._left, 1 << 20)
        if not size:
            return 0
        found = self._stream.read_exactly(size)
        if len(found) != size:
            raise CheckpointInvalid("ArchiveTruncated", f"{self._name} changed while it was read")
        buffer[:size] = found
        self._left -= size
        return size

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
