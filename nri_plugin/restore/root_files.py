"""Looks up files in a root file system that lies in directories one over the other, without mounting it.

Sources: Linux Documentation/filesystems/overlayfs.rst (whiteouts: character devices 0:0; trusted.overlay.opaque). The
directories are of images or checkpoints, and untrusted: no symbolic link is followed.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from shared.elf import HEAD_BYTES, ElfFacts, read_elf
from shared.preflight.files import Found

_OPAQUE: Final = ("trusted.overlay.opaque", "user.overlay.opaque")
_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}


def look_up(directories: Sequence[Path], paths: Iterable[str]) -> Mapping[str, Found | None]:
    """What each absolute path without ``..`` is; None where it is nothing. ``directories``: topmost first."""
    root = Found("directory", 0, None, None)
    return {path: _look_up(directories, path.strip("/").split("/")) if path.strip("/") else root for path in paths}


def _look_up(directories: Sequence[Path], parts: Sequence[str]) -> Found | None:
    for directory in directories:
        found = here = directory
        status: os.stat_result | None = os.lstat(directory)
        hides = False
        for position, part in enumerate(parts):
            here = found / part
            try:
                status = os.lstat(here)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                    raise
                status = None
                break
            last = position == len(parts) - 1
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                return None
            if not last and not stat.S_ISDIR(status.st_mode):
                return None
            hides = hides or (not last and _opaque(here))
            found = here
        if status is not None:
            return _facts(here, status)
        if hides:
            return None
    return None


def _opaque(directory: Path) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(directory, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _facts(path: Path, status: os.stat_result) -> Found:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special file")
    elf = _elf(path, status.st_size) if kind == "file" else None
    target = str(path.readlink()) if kind == "symbolic link" else None
    return Found(kind, status.st_size, stat.S_IMODE(status.st_mode), elf, target)


def _elf(path: Path, size: int) -> ElfFacts | None:
    if size == 0:
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Mapped, not read: of a mebibyte each, some hundred bytes are looked at.
        with mmap.mmap(descriptor, min(size, HEAD_BYTES), access=mmap.ACCESS_READ) as head:
            return read_elf(head)
    finally:
        os.close(descriptor)
