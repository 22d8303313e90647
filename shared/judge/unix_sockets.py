"""Unix sockets that have a path.

CRIU, as root, removes the socket that is there, binds one, gives it owner and mode, and connects others to it
(criu/sk-unix.c: unlink_sk, bind_unix_sk, restore_file_perms, post_open_standalone). The path is what the process once
gave, so links may be on the way: nri_plugin.restore.root_links sees that none leads out of the container.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import PurePosixPath
from typing import Final

from shared.criu.dump import Dump
from shared.criu.mounts import MountEntry
from shared.criu.open_files import UnixSocket
from shared.errors import Refused
from shared.judge.paths import below, spelt_once
from shared.judge.socket_places import KERNEL_FOLDERS
from shared.judge.tmpfs_links import TmpfsLinks

_HOLD_SOCKETS: Final = frozenset({"overlay", "tmpfs"})


def unix_socket_refusals(dump: Dump, links: Set[str]) -> Iterator[Refused]:
    """SocketExceeds. ``links``: of the tmpfs mounts that CRIU fills."""
    held = {descriptor.file for descriptor in dump.descriptors}
    known = TmpfsLinks(dump, links)
    mounts = {spelt_once(mount.mountpoint): mount for mount in dump.mounts}
    for file in dump.files:
        if not isinstance(file, UnixSocket):
            continue
        if file.outside:
            yield _refused("that CRIU would have from outside the container")
        if (path := file.path) is None:
            continue
        spelt = spelt_once(path)
        if not path.startswith("/") or ".." in path.split("/"):
            yield _refused(f"at {path}, which is no absolute path or leads upwards")
        elif known.lead_to(spelt):
            yield _refused(f"at {path}, by way of a link")
        elif not _holds_sockets(next((mounts[each] for each in _ways(spelt) if each in mounts), None), spelt):
            yield _refused(f"at {path}, where no socket can be")
        elif file.id not in held:
            yield _refused(f"at {path} that no process holds, to which another would be connected")


def _ways(path: str) -> tuple[str, ...]:
    """The path and the directories on the way, innermost first."""
    return (path, *map(str, PurePosixPath(path).parents))


def _holds_sockets(mount: MountEntry | None, path: str) -> bool:
    if mount is None or below(path, KERNEL_FOLDERS):
        return False
    return mount.mountpoint == "/" or mount.external is not None or mount.fstype in _HOLD_SOCKETS


def _refused(what: str) -> Refused:
    return Refused(
        "SocketExceeds",
        f"the checkpoint has a Unix socket {what}; such a socket cannot be restored",
    )
