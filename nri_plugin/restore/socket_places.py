"""Looks at the volumes on which CRIU would make Unix sockets, before it does so as root.

For each path some user of the checkpoint must be able to make a socket there, and to remove what is there now: nothing,
or a socket. The kernel says so of each user, with the volume at hand: no link is followed, and nothing is left. What
the volume has when CRIU comes may be another thing; CRIU follows no link there either (links.py).

Sources: path_resolution(7), openat2(2), faccessat2(2), setfsuid(2), unlink(2) about sticky directories.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
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
    set_effective,
    set_file_user,
)
from shared.criu.capabilities import NAMES
from shared.errors import Refused
from shared.judge.file_rights import FileUser
from shared.judge.socket_places import SocketPlace, resolved

_RESOLVE_BENEATH: Final = 8
_SET_GROUPS: Final = {"x86_64": 116, "aarch64": 159}
"""setgroups(2) of the thread alone (asm/unistd.h); libc's own changes every thread of the process."""
_FOWNER: Final = 1 << NAMES.index("CAP_FOWNER")
_GHOST: Final = ".criu-sk-ghost"
"""CRIU moves there what is at a deleted socket's path, and removes what it finds there (criu/sk-unix.c)."""


def check_socket_places(places: Iterable[SocketPlace]) -> None:
    """Raises Refused("SocketExceeds") for a path where no user could make the socket. Blocks while it looks."""
    for place in places:
        if (why := _why_not(place)) is not None:
            raise Refused(
                "SocketExceeds",
                f"the checkpoint has a Unix socket at {place.path}, on the volume at {place.volume}, and {why}; CRIU "
                "would make it as root, so take a new checkpoint, or let the pod's user write in that directory",
            )


def _why_not(place: SocketPlace) -> str | None:
    try:
        volume = os.open(place.source, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return f"the volume cannot be opened ({error.strerror})"
    try:
        inside = PurePosixPath(resolved(place.path)).relative_to(resolved(place.volume))
        return _look(volume, inside, place)
    finally:
        os.close(volume)


def _look(volume: int, inside: PurePosixPath, place: SocketPlace) -> str | None:
    parent = str(inside.parent)
    names = (inside.name, inside.name + _GHOST) if place.deleted else (inside.name,)
    try:
        folder = _opened(volume, parent)
    except OSError as error:
        return f"its directory cannot be opened there ({error.strerror})"
    try:
        there = [found for name in names if (found := _status(name, folder)) is not None]
        around = os.fstat(folder)
    finally:
        os.close(folder)
    if any(not stat.S_ISSOCK(found.st_mode) for found in there):
        return "something else is there"
    for user in place.users:
        owns = _may_remove(user, place.capabilities, around, there)
        if owns and as_user(user, place.capabilities, lambda: _may_write(volume, parent)):
            return None
    return "no user of the checkpoint may make it there, or remove what is there now"


def _opened(volume: int, path: str) -> int:
    """A descriptor of what is there in the volume; raises OSError, also where a link is on the way."""
    resolve = _RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    how = struct.pack("=QQQ", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, resolve)
    return call(OPENAT2, volume, os.fsencode(path), how, ctypes.c_size_t(len(how)))


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _may_remove(user: FileUser, capabilities: int, folder: os.stat_result, there: Sequence[os.stat_result]) -> bool:
    """Whether the sticky bit of a directory lets the user remove what is there (linux fs/namei.c, may_delete)."""
    if not folder.st_mode & stat.S_ISVTX or capabilities & _FOWNER or folder.st_uid == user.uid:
        return True
    return all(found.st_uid == user.uid for found in there)


def _may_write(volume: int, path: str) -> bool:
    """Whether this thread may go to the directory, and make and remove files there."""
    try:
        folder = _opened(volume, path)
        try:
            call(FACCESSAT2, folder, b"", os.W_OK | os.X_OK, EMPTY_PATH | AS_EFFECTIVE)
            return True
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return False
        raise


def as_user(user: FileUser, capabilities: int, asked: Callable[[], bool]) -> bool:
    """Asks in a thread of its own, which has the user's rights over files and ends with them (credentials(7))."""
    answers: list[bool | BaseException] = []

    def ask() -> None:
        try:
            groups = (ctypes.c_uint * len(user.groups))(*user.groups)
            call(_SET_GROUPS[platform.machine()], len(user.groups), groups)
            set_file_user(user.uid, user.gid)
            set_effective(capabilities)
            answers.append(asked())
        except BaseException as error:  # handed to the thread that waits
            answers.append(error)

    thread = threading.Thread(target=ask, name="as-user")
    thread.start()
    thread.join()
    (answer,) = answers
    if isinstance(answer, BaseException):
        raise answer
    return answer
