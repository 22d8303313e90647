"""Looks at the volumes on which CRIU would make deleted files again, watch files or fill FIFOs as root, before it does.

The kernel says of each user of the checkpoint whether he could do the same, with the volume at hand: no link is
followed, and nothing is left there. Sources: path_resolution(7), openat2(2), faccessat2(2), inotify_add_watch(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from nri_plugin.restore.cover import (
    AS_EFFECTIVE,
    EMPTY_PATH,
    FACCESSAT2,
    OPENAT2,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    call,
)
from nri_plugin.restore.socket_places import as_user
from shared.errors import Refused
from shared.judge.socket_places import resolved
from shared.judge.volume_files import Deed, VolumeFile

_RESOLVE_BENEATH: Final = 8
_WANTED: Final = {
    Deed.MAKE: (os.W_OK | os.X_OK, "make it again", "make files in its directory"),
    Deed.WATCH: (os.R_OK, "watch it", "read it"),
    Deed.FILL: (os.W_OK, "write into it", "write into it"),
}


def check_volume_files(files: Iterable[VolumeFile]) -> None:
    """Raises Refused("FileExceeds") for a path where no user could do what CRIU would. Blocks while it looks."""
    for file in files:
        if not _may(file):
            _, deed, right = _WANTED[file.deed]
            raise Refused(
                "FileExceeds",
                f"the checkpoint has {file.path}, on the volume at {file.volume}, and CRIU would {deed} as root; no "
                f"user of the checkpoint may {right}, so take a new checkpoint without it, or give the pod's user that "
                "right",
            )


def _may(file: VolumeFile) -> bool:
    try:
        volume = os.open(file.source, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        inside = PurePosixPath(resolved(file.path)).relative_to(resolved(file.volume))
        path = _nearest(volume, inside) if file.deed is Deed.MAKE else str(inside)
        wanted, _, _ = _WANTED[file.deed]
        return any(as_user(user, file.capabilities, lambda: _allowed(volume, path, wanted)) for user in file.users)
    finally:
        os.close(volume)


def _nearest(volume: int, path: PurePosixPath) -> str:
    """The directory that the file was in, or the next one above that is still there: CRIU makes those that are gone."""
    for parent in path.parents:
        try:
            os.close(_opened(volume, str(parent)))
        except FileNotFoundError:
            continue
        except OSError:
            pass
        return str(parent)
    return "."


def _opened(volume: int, path: str) -> int:
    """A descriptor of what is there in the volume; raises OSError, also where a link is on the way.

    A volume that is a single file is its own only path.
    """
    if path == ".":
        return os.dup(volume)
    resolve = _RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, resolve)
    return call(OPENAT2, volume, os.fsencode(path), how, ctypes.c_size_t(len(how)))


def _allowed(volume: int, path: str, wanted: int) -> bool:
    """Whether this thread may go there, and do that with what is there."""
    try:
        found = _opened(volume, path)
        try:
            call(FACCESSAT2, found, b"", wanted, EMPTY_PATH | AS_EFFECTIVE)
            return True
        finally:
            os.close(found)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return False
        raise
