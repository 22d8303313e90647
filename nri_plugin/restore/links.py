"""CRIU follows no link in the container's root and volumes while it makes something there, or opens files on volumes.

By path and as root, CRIU makes deleted files again (criu/files-reg.c, create_ghost), removes and binds sockets
(criu/sk-unix.c), watches files (criu/fsnotify.c) and opens them; when it does the first, its root directory still is
the node's. A link on the way, in an image's layer or put on a volume in that moment, would lead it there, by way of
/proc/self/fd also later. So it restores from images of the mount tree in which those mounts have MS_NOSYMFOLLOW
(mount(2), Linux 5.10; taken off again by mount_setattr(2), Linux 5.14, before the processes run: cover.py). CRIU gives
mounts the flags of the image as they are (criu/mount-v2.c, do_mount_root_v2, do_bind_mount_v2; criu/mount.c before). A
dump with files open in the root alone restores without: they are looked up before, or what was opened is looked at
(shared/judge/places.py).

Paths of files have no link in them, as the kernel told them. Addresses of sockets are what the process gave: for those
below /var/run, a link to /run in every image that matters, the root keeps following. Where the root can be seen before,
it is looked through as well, for a reason that is read sooner.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from nri_plugin.restore.root_files import look_up
from shared.criu.criu_pb2 import MntEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, join
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
_RUN: Final = "/var/run"


def without_following(images: ImageDirectory, dump: Dump, release: str | None = None) -> Mapping[str, bytes]:
    """The mount images, by name, to use in place of the dump's; none on a kernel (``release``) that is too old."""
    held = {(mount.namespace, mount.id) for mount in held_mounts(dump, release)}
    replaced = {}
    for namespace in dict.fromkeys(namespace for namespace, _ in held):
        entries = images.entries(Kind.MNTS, MntEntry, namespace)
        for entry in entries:
            if (namespace, entry.mnt_id) in held:
                entry.flags |= NO_FOLLOW
        replaced[Kind.MNTS.file(namespace)] = join(Kind.MNTS, entries)
    return replaced


def held_mounts(dump: Dump, release: str | None = None) -> tuple[MountEntry, ...]:
    """The mounts on which CRIU follows no link, and which follow again afterwards."""
    if not _known(release) or not (_unseen(dump) or opens_on_volumes(dump)):
        return ()
    return tuple(
        mount
        for mount in dump.mounts
        if not mount.flags & NO_FOLLOW
        and (
            not _by_run(dump)
            if mount.mountpoint == "/"
            else mount.external is not None and not below(mount.mountpoint, _OWN_LINKS)
        )
    )


def check_links(dump: Dump, *, root_unseen: bool, release: str | None = None) -> None:
    """Raises Refused for what needs links not to be followed where they would be: KernelUnfit, SocketExceeds."""
    if not _known(release) and _unseen(dump):
        raise Refused(
            "KernelUnfit",
            "the checkpoint has deleted files, watched ones, such with a backslash in their name or Unix sockets with "
            "a path, and this node's kernel cannot keep CRIU from following links to them; that takes Linux 5.14 or "
            "later",
        )
    if root_unseen and _by_run(dump):
        raise Refused(
            "SocketExceeds",
            f"the checkpoint has a Unix socket below {_RUN}, whose link is not there yet where the runtime restores an "
            "archive image; build the image again with --format layered",
        )


def check_root_links(dump: Dump, directories: Sequence[Path]) -> None:
    """Raises Refused("FileExceeds") for a file, deleted ones included, or a socket by way of a link in the root.

    ``directories``: the root's, topmost first.
    """
    if _by_run(dump):
        (run,) = look_up(directories, [_RUN]).values()
        if run is not None and run.kind == "symbolic link" and run.target not in ("/run", "../run"):
            raise _leads_elsewhere(_RUN)
    paths = _file_paths(dump)
    paths |= {where(path) for path in _socket_paths(dump)}
    if _by_run(dump) and (odd := sorted(path for path in paths if "\\" in path)):
        raise _leads_elsewhere(odd[0])  # as names that are no UTF-8 are read; their own cannot be looked up
    mountpoints = [spelt_once(mount.mountpoint) for mount in dump.mounts if mount.mountpoint != "/"]
    every = {str(parent) for path in paths for parent in Path(spelt_once(path)).parents}
    folders = {folder for folder in every if not below(folder, mountpoints)}
    for folder, found in look_up(directories, sorted(folders)).items():
        if found is not None and found.kind != "directory":
            raise _leads_elsewhere(folder)


def _leads_elsewhere(path: str) -> Refused:
    return Refused(
        "FileExceeds",
        f"the checkpoint has files or sockets by way of {path}, which is no directory in the root file system; such "
        "files cannot be restored",
    )


def _socket_paths(dump: Dump) -> list[str]:
    return [path for file in dump.files if isinstance(file, UnixSocket) and (path := file.path) is not None]


def _file_paths(dump: Dump) -> set[str]:
    paths = {file.path for file in dump.files if isinstance(file, RegularFile)}
    return paths | {watch.path for watch in watches(dump)}


def _unseen(dump: Dump) -> bool:
    """Whether nobody can look at what CRIU does by a path: it makes something, watches it, or the name is not clear."""
    if dump.ghosts or _socket_paths(dump) or watches(dump):
        return True
    return any("\\" in path for path in _file_paths(dump))  # as names that are no UTF-8 are read


def _by_run(dump: Dump) -> bool:
    return any(where(path) != spelt_once(path) for path in _socket_paths(dump))


def _known(release: str | None) -> bool:
    numbers = (release or platform.release()).split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal()) >= _KERNEL
