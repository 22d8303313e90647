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
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from shared.compression import Compression, Decompressed, sniff
from shared.errors import CheckpointInvalid
from shared.tar import DEPTH_MAX, MEMBERS_MAX, MemberWalk, TarMember, normalised, quoted

__all__ = ["CheckpointFiles", "Compression", "open_checkpoint"]

KEPT_FILE_BYTES: Final = 4 << 20
"""Files up to this size stay in memory while a compressed archive is passed once …"""
KEPT_BYTES: Final = 64 << 20
"""… up to this much in all."""


class CheckpointFiles(ABC):
    """The regular files of one checkpoint, by name; a context manager."""

    path: Path
    compression: Compression = Compression.NONE

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Every regular file, as ``config.dump`` or ``checkpoint/pages-1.img``, in the archive's or sorted order."""

    @abstractmethod
    def __contains__(self, name: object) -> bool:
        """Whether there is such a regular file."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes; CheckpointInvalid("FileMissing") when there is no such file."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """The file's bytes, streamed; seekable except for large files of a compressed archive."""

    @abstractmethod
    def close(self) -> None:
        """Frees the descriptors; files already open stay readable."""

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The whole file; CheckpointInvalid("FileTooLarge") when it has more than ``limit_bytes``."""
        size = self.size(name)
        if size > limit_bytes:
            raise CheckpointInvalid(
                "FileTooLarge",
                f"{quoted(name)} of {self.path} has {size} bytes, more than the {limit_bytes} a sound checkpoint needs",
            )
        with self.open(name) as file:
            content = file.read(size + 1)
        if len(content) != size:
            raise CheckpointInvalid("ArchiveTruncated", f"{quoted(name)} of {self.path} changed while it was read")
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _missing(self, name: str) -> CheckpointInvalid:
        return CheckpointInvalid("FileMissing", f"{self.path} has no file {quoted(name)}")


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
        raise _unreadable(path, error) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            return _Directory(path, descriptor, subdirectory)
        if not stat.S_ISREG(mode):
            raise CheckpointInvalid("CheckpointUnreadable", f"{path} is neither a file nor a directory")
        compression = sniff(os.pread(descriptor, 4, 0))
        if compression is Compression.NONE:
            return _PlainArchive(path, descriptor, subdirectory)
        return _CompressedArchive(path, descriptor, subdirectory, compression)
    except OSError as error:
        os.close(descriptor)
        raise _unreadable(path, error) from error
    except BaseException:
        os.close(descriptor)
        raise


def _unreadable(path: Path, error: OSError) -> CheckpointInvalid:
    return CheckpointInvalid("CheckpointUnreadable", f"cannot read {path}: {error.strerror}")


class _Archive(CheckpointFiles):
    """What plain and compressed archives share: an index made in one pass."""

    def __init__(self, path: Path, descriptor: int, subdirectory: str) -> None:
        self.path = path
        self._descriptor = descriptor
        self._files: dict[str, TarMember] = {}
        inside = normalised(subdirectory, str(path))
        self._prefix = f"{inside}/" if inside else ""

    def _keep(self, member: TarMember) -> str | None:
        if member.directory or not member.name.startswith(self._prefix):
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
        for member in MemberWalk(_Forward(descriptor), str(path)).members():
            self._keep(member)

    def open(self, name: str) -> BinaryIO:
        member = self._member(name)
        window = _Window(os.dup(self._descriptor), member.offset, member.size, f"{quoted(name)} of {self.path}")
        return cast(BinaryIO, io.BufferedReader(window, 256 << 10))


class _CompressedArchive(_Archive):
    """One pass finds the names and keeps the small files; a large file is decompressed anew, from the start."""

    def __init__(self, path: Path, descriptor: int, subdirectory: str, compression: Compression) -> None:
        super().__init__(path, descriptor, subdirectory)
        self.compression = compression
        self._kept: dict[str, bytes] = {}
        kept_bytes = 0
        with Decompressed(os.dup(descriptor), compression, str(path)) as stream:
            walk = MemberWalk(stream, str(path))
            for member in walk.members():
                name = self._keep(member)
                if name is not None and member.size <= min(KEPT_FILE_BYTES, KEPT_BYTES - kept_bytes):
                    self._kept[name] = walk.content()
                    kept_bytes += member.size

    def open(self, name: str) -> BinaryIO:
        member = self._member(name)
        if name in self._kept:
            return io.BytesIO(self._kept[name])
        stream = Decompressed(os.dup(self._descriptor), self.compression, str(self.path))
        try:
            stream.skip(member.offset)
        except BaseException:
            stream.close()
            raise
        return cast(BinaryIO, io.BufferedReader(_Part(stream, member.size, str(self.path)), 256 << 10))


class _Directory(CheckpointFiles):
    """An unpacked checkpoint; each path component is opened relative to the folder above, links refused."""

    def __init__(self, path: Path, descriptor: int, subdirectory: str) -> None:
        self.path = path / subdirectory if subdirectory else path
        self._names: dict[str, None] = {}
        top = self._descend(descriptor, normalised(subdirectory, str(path)))
        try:
            self._list("", top)
        except BaseException:
            os.close(top)
            raise
        os.close(descriptor)
        self._top = top

    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def size(self, name: str) -> int:
        descriptor = self._file(name)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def open(self, name: str) -> BinaryIO:
        return os.fdopen(self._file(name), "rb", 256 << 10)

    def close(self) -> None:
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def _file(self, name: str) -> int:
        if name not in self._names:
            raise self._missing(name)
        folder, _, last = name.rpartition("/")
        try:
            parent = self._descend(self._top, folder)
            try:
                descriptor = os.open(last, _READ | os.O_NONBLOCK, dir_fd=parent)
            finally:
                os.close(parent)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise _unreadable(self.path / name, error) from error
        raise self._unwanted(name)

    def _descend(self, descriptor: int, folder: str) -> int:
        """A new descriptor of ``folder`` below ``descriptor``, itself when empty."""
        current = os.dup(descriptor)
        for part in folder.split("/") if folder else ():
            try:
                inner = os.open(part, _READ | os.O_DIRECTORY, dir_fd=current)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise CheckpointInvalid(
                        "MemberKind", f"{quoted(part)} in {self.path} is not a folder; links are not followed"
                    ) from error
                if error.errno == errno.ENOENT:
                    raise CheckpointInvalid("FileMissing", f"there is no folder {self.path}") from error
                raise
            finally:
                os.close(current)
            current = inner
        return current

    def _list(self, folder: str, descriptor: int) -> None:
        with os.scandir(descriptor) as entries:
            found = sorted(entries, key=lambda entry: entry.name) if folder.count("/") < DEPTH_MAX else []
        for entry in found:
            name = f"{folder}{entry.name}"
            try:
                name.encode()
            except UnicodeEncodeError:
                raise CheckpointInvalid("MemberName", f"{self.path}: {quoted(name)} is not UTF-8") from None
            if entry.is_dir(follow_symlinks=False):
                inner = self._descend(descriptor, entry.name)
                try:
                    self._list(f"{name}/", inner)
                finally:
                    os.close(inner)
            elif entry.is_file(follow_symlinks=False):
                self._names[name] = None
            else:
                raise self._unwanted(name)
            if len(self._names) > MEMBERS_MAX:
                raise CheckpointInvalid("TooManyMembers", f"{self.path} has more than {MEMBERS_MAX} files")

    def _unwanted(self, name: str) -> CheckpointInvalid:
        return CheckpointInvalid(
            "MemberKind", f"{quoted(name)} in {self.path} is a link, device or socket; only regular files are read"
        )


_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Forward:
    """A plain archive as the walk wants it: small reads through a buffer, contents skipped without reading."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._position = 0

    def read_exactly(self, size: int) -> bytes:
        found = os.pread(self._descriptor, size, self._position)
        while (
            found
            and len(found) < size
            and (more := os.pread(self._descriptor, size - len(found), self._position + len(found)))
        ):
            found += more
        self._position += len(found)
        return found

    def skip(self, size: int) -> int:
        moved = min(size, self._size - self._position)
        self._position += moved
        return moved


class _Window(io.RawIOBase):
    """One member of a plain archive, by pread on a descriptor of its own."""

    def __init__(self, descriptor: int, offset: int, size: int, name: str) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._size = size
        self._name = name
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def fileno(self) -> int:
        raise io.UnsupportedOperation("a member has no descriptor of its own")

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._size - self._position))
        if not size:
            return 0
        try:
            found = os.preadv(self._descriptor, [memoryview(buffer)[:size]], self._offset + self._position)
        except OSError as error:
            raise CheckpointInvalid("CheckpointUnreadable", f"cannot read {self._name}: {error.strerror}") from error
        if not found:
            raise CheckpointInvalid("ArchiveTruncated", f"{self._name} became shorter while it was read")
        self._position += found
        return found

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


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
