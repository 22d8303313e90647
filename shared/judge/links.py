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

import stat
from collections.abc import Iterable
from typing import Final

from shared.criu.dump import Dump
from shared.criu.mounts import MountEntry
from shared.criu.open_files import RegularFile, UnixSocket
from shared.errors import Refused
from shared.judge.paths import below, spelt_once, where
from shared.judge.places import opens_on_volumes, watches

_KERNEL: Final = (5, 14)
_OWN_LINKS: Final = ("/proc", "/sys")
"""The kernel's own; what may be open there is checked by itself."""
RUN: Final = "/var/run"


def held_mounts(dump: Dump, kernel: str, *, may_mount: bool = False) -> tuple[MountEntry, ...]:
    """The mounts on which CRIU follows no link, and which follow again afterwards; ``kernel``: the node's release.

    ``may_mount``: whether the pod could have mounted something over others, or have copies of mounts in mount
    namespaces of its processes (paths.py); then nobody can tell by a path what is opened.
    """
    if not _known(kernel) or not (may_mount or _unseen(dump) or opens_on_volumes(dump)):
        return ()
    own, by_run_ = dump.root.ids.mnt_ns, by_run(dump)
    held = [
        mount
        for mount in dump.mounts
        if mount.namespace == own
        and (
            not by_run_
            if mount.mountpoint == "/"
            else mount.external is not None and not below(mount.mountpoint, _OWN_LINKS)
        )
    ]
    places = {(mount.mountpoint, mount.device, mount.root) for mount in held}
    copies = (mount for mount in dump.mounts if mount.namespace != own)
    return tuple(held + [mount for mount in copies if (mount.mountpoint, mount.device, mount.root) in places])


def check_links(dump: Dump, *, root_unseen: bool, kernel: str) -> None:
    """Raises Refused for what needs links not to be followed where they would be: KernelUnfit, SocketExceeds."""
    if not _known(kernel) and _unseen(dump):
        raise Refused(
            "KernelUnfit",
            "the checkpoint has deleted files, watched ones, FIFOs, files with a backslash in their name or Unix "
            "sockets with a path, and this node's kernel cannot keep CRIU from following links to them; that takes "
            "Linux 5.14 or later",
        )
    if root_unseen and by_run(dump):
        raise Refused(
            "SocketExceeds",
            f"the checkpoint has a Unix socket below {RUN}, whose link is not there yet where the runtime restores an "
            "archive image; build the image again with --format layered",
        )


def check_volumes_of_mounters(dump: Dump, kernel: str) -> None:
    """For a pod that may mount, where nobody looks at its files again; raises Refused("KernelUnfit")."""
    volumes = [mount.mountpoint for mount in dump.mounts if mount.external is not None and mount.mountpoint != "/"]
    own = dump.root.ids.mnt_ns
    if not _known(kernel) and any(namespace != own or below(path, volumes) for path, namespace in file_paths(dump)):
        raise Refused(
            "KernelUnfit",
            "the checkpoint has files open on volumes, the pod may mount what it likes over them (CAP_SYS_ADMIN), and "
            "this node's kernel cannot keep CRIU from following links to such files; that takes Linux 5.14 or later",
        )


def socket_paths(dump: Dump) -> list[str]:
    """The paths of all Unix sockets that have one."""
    return [path for file in dump.files if isinstance(file, UnixSocket) and (path := file.path) is not None]


def file_paths(dump: Dump) -> frozenset[tuple[str, int]]:
    """The paths of all open and watched files, each with the mount namespace that it is looked up in."""
    return _located(dump, (file for file in dump.files if isinstance(file, RegularFile)))


def followed_paths(dump: Dump) -> frozenset[tuple[str, int]]:
    """As ``file_paths``, without deleted files, which are made again, and links that are open themselves."""
    files = (file for file in dump.files if isinstance(file, RegularFile) and file.id not in dump.remapped)
    return _located(dump, (file for file in files if file.mode is None or not stat.S_ISLNK(file.mode)))


def _located(dump: Dump, files: Iterable[RegularFile]) -> frozenset[tuple[str, int]]:
    namespaces, own = {mount.id: mount.namespace for mount in dump.mounts}, dump.root.ids.mnt_ns
    places = [(file.path, file.mount) for file in files] + [(watch.path, watch.mount) for watch in watches(dump)]
    return frozenset((path, namespaces.get(mount, own)) for path, mount in places)


def _unseen(dump: Dump) -> bool:
    """Whether nobody can look at what CRIU does by a path: it makes something, fills a FIFO, watches something, or the
    name is not clear."""
    if dump.ghosts or socket_paths(dump) or watches(dump) or any(file.kind == "fifo" for file in dump.files):
        return True
    return any("\\" in path for path, _ in file_paths(dump))  # as names that are no UTF-8 are read


def by_run(dump: Dump) -> bool:
    """Whether a socket's path goes by way of /var/run."""
    return any(where(path) != spelt_once(path) for path in socket_paths(dump))


def _known(kernel: str) -> bool:
    numbers = kernel.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal()) >= _KERNEL
