"""CRIU follows no link in the container's root and volumes while it makes something there, or opens files on volumes.

By path and as root, CRIU makes deleted files again (criu/files-reg.c, create_ghost), removes and binds sockets
(criu/sk-unix.c), watches files (criu/fsnotify.c) and opens them; when it does the first, its root directory still is
the node's. A link on the way, in an image's layer or put on a volume in that moment, would lead it there, by way of
/proc/self/fd also later. So it restores from images of the mount tree in which those mounts have MS_NOSYMFOLLOW
(mount(2), Linux 5.10; taken off again by mount_setattr(2), Linux 5.14, before the processes run: cover.py). CRIU gives
mounts the flags of the image as they are (criu/mount-v2.c, do_mount_root_v2, do_bind_mount_v2; criu/mount.c before). A
dump with files open in the root alone restores without: they are looked up before, or what was opened is looked at
(places.py).

Paths of files have no link in them, as the kernel told them. Addresses of sockets are what the process gave: for those
below /var/run, a link to /run in every image that matters, the root keeps following. Where the root can be seen before,
it is looked through as well, for a reason that is read sooner (nri_plugin/restore/root_links.py).
"""

from __future__ import annotations

from typing import Final

from shared.criu.dump import Dump
from shared.criu.mounts import MountEntry
from shared.criu.open_files import RegularFile, UnixSocket
from shared.errors import Refused
from shared.judge.paths import below, spelt_once, where
from shared.judge.places import opens_on_volumes, watches

NO_FOLLOW: Final = 256
"""MS_NOSYMFOLLOW of linux/mount.h."""
_KERNEL: Final = (5, 14)
_OWN_LINKS: Final = ("/proc", "/sys")
"""The kernel's own; what may be open there is checked by itself."""
RUN: Final = "/var/run"


def held_mounts(dump: Dump, kernel: str) -> tuple[MountEntry, ...]:
    """The mounts on which CRIU follows no link, and which follow again afterwards; ``kernel``: the node's release."""
    if not _known(kernel) or not (_unseen(dump) or opens_on_volumes(dump)):
        return ()
    return tuple(
        mount
        for mount in dump.mounts
        if not mount.flags & NO_FOLLOW
        and (
            not by_run(dump)
            if mount.mountpoint == "/"
            else mount.external is not None and not below(mount.mountpoint, _OWN_LINKS)
        )
    )


def check_links(dump: Dump, *, root_unseen: bool, kernel: str) -> None:
    """Raises Refused for what needs links not to be followed where they would be: KernelUnfit, SocketExceeds."""
    if not _known(kernel) and _unseen(dump):
        raise Refused(
            "KernelUnfit",
            "the checkpoint has deleted files, watched ones, such with a backslash in their name or Unix sockets with "
            "a path, and this node's kernel cannot keep CRIU from following links to them; that takes Linux 5.14 or "
            "later",
        )
    if root_unseen and by_run(dump):
        raise Refused(
            "SocketExceeds",
            f"the checkpoint has a Unix socket below {RUN}, whose link is not there yet where the runtime restores an "
            "archive image; build the image again with --format layered",
        )


def socket_paths(dump: Dump) -> list[str]:
    """The paths of all Unix sockets that have one."""
    return [path for file in dump.files if isinstance(file, UnixSocket) and (path := file.path) is not None]


def file_paths(dump: Dump) -> set[str]:
    """The paths of all open and watched files."""
    paths = {file.path for file in dump.files if isinstance(file, RegularFile)}
    return paths | {watch.path for watch in watches(dump)}


def _unseen(dump: Dump) -> bool:
    """Whether nobody can look at what CRIU does by a path: it makes something, watches it, or the name is not clear."""
    if dump.ghosts or socket_paths(dump) or watches(dump):
        return True
    return any("\\" in path for path in file_paths(dump))  # as names that are no UTF-8 are read


def by_run(dump: Dump) -> bool:
    """Whether a socket's path goes by way of /var/run."""
    return any(where(path) != spelt_once(path) for path in socket_paths(dump))


def _known(kernel: str) -> bool:
    numbers = kernel.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal()) >= _KERNEL
