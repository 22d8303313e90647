"""The one interface to a checkpoint's files, whatever they lie in."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from shared.compression import Compression
from shared.errors import CheckpointInvalid
from shared.member_names import quoted


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

    def written_at(self, name: str) -> datetime | None:
        """When the file was last changed, to the second; None where it is in no archive, or that does not say."""
        return None

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The whole file; CheckpointInvalid("FileTooLarge") when it has more than ``limit_bytes``."""
        size = self.size(name)
        if size > limit_bytes:
            raise self._too_large(name, size, limit_bytes)
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

    def _too_large(self, name: str, size: int, limit_bytes: int) -> CheckpointInvalid:
        return CheckpointInvalid(
            "FileTooLarge",
            f"{quoted(name)} of {self.path} has {size} bytes, more than the {limit_bytes} a sound checkpoint needs",
        )

    def _missing(self, name: str) -> CheckpointInvalid:
        return CheckpointInvalid("FileMissing", f"{self.path} has no file {quoted(name)}")


def unreadable(what: str, error: OSError) -> CheckpointInvalid:
    return CheckpointInvalid("CheckpointUnreadable", f"cannot read {what}: {error.strerror}")


class Window(io.RawIOBase):
    """``size`` bytes of a file from ``offset``, by pread; owns ``descriptor``."""

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
        raise io.UnsupportedOperation("part of a file has no descriptor of its own")

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._size - self._position))
        if not size:
            return 0
        try:
            found = os.preadv(self._descriptor, [memoryview(buffer)[:size]], self._offset + self._position)
        except OSError as error:
            raise unreadable(self._name, error) from error
        if not found:
            raise CheckpointInvalid("ArchiveTruncated", f"{self._name} became shorter while it was read")
        self._position += found
        return found

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
