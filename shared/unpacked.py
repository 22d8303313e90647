"""An unpacked checkpoint: a directory, perhaps made by somebody who wants us to read another one."""

from __future__ import annotations

import errno
import io
import itertools
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final, cast

from shared.checkpoint_files import CheckpointFiles, Window, unreadable
from shared.errors import CheckpointInvalid
from shared.member_names import DEPTH_MAX, normalised, quoted
from shared.tar import MEMBERS_MAX

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnpackedDirectory(CheckpointFiles):
    """An unpacked checkpoint; each path component is opened relative to the folder above, links refused."""

    def __init__(self, path: Path, descriptor: int, subdirectory: str) -> None:
        self.path = path / subdirectory if subdirectory else path
        self._names: dict[str, None] = {}
        self._entries = 0
        self._folder = ("", -1)
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
        descriptor = self._file(name)
        window = Window(descriptor, 0, os.fstat(descriptor).st_size, str(self.path / name))
        return cast(BinaryIO, io.BufferedReader(window, 256 << 10))

    def read(self, name: str, limit_bytes: int) -> bytes:
        descriptor = self._file(name)
        try:
            size = os.fstat(descriptor).st_size
            if size > limit_bytes:
                raise self._too_large(name, size, limit_bytes)
            content = os.pread(descriptor, size + 1, 0)
        except OSError as error:
            raise unreadable(str(self.path / name), error) from error
        finally:
            os.close(descriptor)
        if len(content) != size:
            raise CheckpointInvalid("ArchiveTruncated", f"{quoted(name)} of {self.path} changed while it was read")
        return content

    def close(self) -> None:
        for descriptor in {self._folder[1], self._top} - {-1}:
            os.close(descriptor)
        self._folder, self._top = ("", -1), -1

    def _file(self, name: str) -> int:
        if name not in self._names:
            raise self._missing(name)
        folder, _, last = name.rpartition("/")
        try:
            descriptor = os.open(last, _READ | os.O_NONBLOCK, dir_fd=self._enter(folder))
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise unreadable(str(self.path / name), error) from error
        raise self._unwanted(name)

    def _enter(self, folder: str) -> int:
        """A descriptor of ``folder``, kept for the files that are mostly asked for next."""
        if self._folder[0] != folder or self._folder[1] < 0:
            entered = self._descend(self._top, folder)
            if self._folder[1] >= 0:
                os.close(self._folder[1])
            self._folder = (folder, entered)
        return self._folder[1]

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
        if folder.count("/") > DEPTH_MAX:
            raise CheckpointInvalid("MemberName", f"{self.path}: {quoted(folder)} is nested too deep")
        with os.scandir(descriptor) as entries:
            found = list(itertools.islice(entries, MEMBERS_MAX + 1))
        self._entries += len(found)
        if self._entries > MEMBERS_MAX:
            raise CheckpointInvalid("TooManyMembers", f"{self.path} has more than {MEMBERS_MAX} files and folders")
        for entry in sorted(found, key=lambda entry: entry.name):
            name = f"{folder}{entry.name}"
            if not name.isprintable():  # a name that is not UTF-8 has surrogates, which are not printable either
                raise CheckpointInvalid(
                    "MemberName", f"{self.path}: {quoted(name)} is not UTF-8 or has control characters in its name"
                )
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

    def _unwanted(self, name: str) -> CheckpointInvalid:
        return CheckpointInvalid(
            "MemberKind", f"{quoted(name)} in {self.path} is a link, device or socket; only regular files are read"
        )
