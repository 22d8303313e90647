"""Where Unix sockets have their paths, against what the live pod's users may do there.

CRIU removes the socket that is at the path, binds, and gives the new one its owner and mode, all as root and before a
read-only mount is made so (criu/sk-unix.c: unlink_sk, bind_unix_sk, restore_file_perms; bind_on_deleted also moves
aside whatever else is there, and makes missing directories). In the container's own root and tmpfs mounts that touches
nothing of others. On a volume it must be what some user of the container could have done: whether so is for the
kernel to say, on the node, with the volume there (nri_plugin/restore/socket_places.py).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from shared.criu.capabilities import NAMES
from shared.criu.dump import Dump
from shared.criu.mounts import MountEntry
from shared.criu.open_files import NOT_RECORDED, UnixSocket
from shared.errors import Refused
from shared.judge.file_rights import FileUser, users_of, within_reach
from shared.judge.paths import below, is_bind, is_read_only, may_mount, spelt_once
from shared.spec import Mount, RuntimeSpec

KERNEL_FOLDERS: Final = ("/proc", "/sys")
_ANY_FILE: Final = "CAP_DAC_OVERRIDE"
_OF_USE: Final = ("CAP_DAC_READ_SEARCH", "CAP_FOWNER")
"""What lets a user go through directories, and remove others' files from a sticky one, without CAP_DAC_OVERRIDE."""


@dataclass(frozen=True, slots=True)
class SocketPlace:
    """A path on a volume where CRIU makes a Unix socket."""

    path: str
    """In the container."""
    volume: str
    """Where in the container the live mount is that it is on …"""
    source: str
    """… and what of the node that mount shows."""
    deleted: bool
    """Whether CRIU removes the socket again, and first moves aside what else is there."""
    users: tuple[FileUser, ...]
    """One of them must be able to make it, and to remove what is there now."""
    capabilities: int
    """As a mask: what each of them could have had of those that matter here."""


def socket_paths_on_volumes(dump: Dump, live: RuntimeSpec) -> tuple[SocketPlace, ...]:
    """Nothing where a process of the live container could have had CAP_DAC_OVERRIDE, or may mount."""
    if within_reach(_ANY_FILE, live) or may_mount(live):
        return ()
    users: tuple[FileUser, ...] | None = None
    capabilities = sum(1 << NAMES.index(name) for name in _OF_USE if within_reach(name, live))
    mounts = live_mounts(dump, live)
    found: dict[SocketPlace, None] = {}
    for file, path in _with_paths(dump):
        point = innermost(mounts, resolved(path))
        mount = mounts.get(point)
        if mount is not None and is_bind(mount.type, mount.options):
            users = users if users is not None else users_of(dump, live)
            found[SocketPlace(path, point, mount.source, file.deleted, users, capabilities)] = None
    return tuple(found)


def socket_place_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """SocketExceeds for a socket where the live pod can have none, or that belongs to somebody else."""
    sockets = tuple(_with_paths(dump))
    if not sockets:
        return
    dumped, mounts = {mount.id: mount for mount in dump.mounts}, live_mounts(dump, live)
    own = {spelt_once(mount.mountpoint) for mount in dump.mounts}
    points = {(mount.namespace, spelt_once(mount.mountpoint)) for mount in dump.mounts}
    users = None if within_reach("CAP_CHOWN", live) else users_of(dump, live)
    for file, path in sockets:
        if below(path, KERNEL_FOLDERS):
            continue  # no socket can be there at all (unix_sockets.py)
        if not may_mount(live):
            yield from _recorded(file, path, dumped, points)
        point = innermost(mounts, resolved(path))
        mount = mounts.get(point)
        in_root = mount is None and innermost(own, resolved(path)) == "/"
        if (live.root_readonly and in_root) or (mount is not None and is_read_only(mount.options)):
            what, field = ("/", "readOnlyRootFilesystem") if mount is None else (mount.destination, "readOnly")
            yield Refused(
                "SocketExceeds",
                f"the checkpoint has a Unix socket at {path}, and the pod has {what} read-only; remove {field} there, "
                "or mount a volume where the socket is",
            )
        elif mount is not None and point == resolved(path):
            yield Refused(
                "SocketExceeds",
                f"the checkpoint has a Unix socket at {path}, where the pod mounts a volume itself; mount the volume "
                "at the directory above",
            )
        elif mount is not None and is_bind(mount.type, mount.options) and users is not None:
            yield from _owner(file, path, users)


def resolved(path: str) -> str:
    """``path`` with /var/run as the link to /run that it is in every image that matters."""
    clean = spelt_once(path)
    return clean.replace("/var/run", "/run", 1) if below(clean, ("/var/run",)) else clean


def _recorded(
    file: UnixSocket, path: str, mounts: Mapping[int, MountEntry], points: Set[tuple[int, str]]
) -> Iterator[Refused]:
    """CRIU works in the root of the mount's namespace, so a mount of another one would lead there."""
    if file.mount == NOT_RECORDED:
        return
    mount = mounts.get(file.mount)
    if mount is not None:
        inside = {point for namespace, point in points if namespace == mount.namespace}
        if spelt_once(mount.mountpoint) in (innermost(inside, spelt_once(path)), innermost(inside, resolved(path))):
            return
    yield Refused(
        "SocketExceeds",
        f"the checkpoint has a Unix socket at {path} on another mount than the one there; such a socket cannot be "
        "restored, so take a new checkpoint when it is closed",
    )


def _owner(file: UnixSocket, path: str, users: tuple[FileUser, ...]) -> Iterator[Refused]:
    uids = {user.uid for user in users}
    gids = {user.gid for user in users}.union(*(user.groups for user in users))
    if (file.uid is not None and file.uid not in uids) or (file.gid is not None and file.gid not in gids):
        yield Refused(
            "SocketExceeds",
            f"the checkpoint has a Unix socket at {path} that belongs to user {file.uid} and group {file.gid}, whom no "
            "process of the container is, and the pod does not grant CAP_CHOWN; add it to the container's "
            "capabilities, or the group to the pod's supplementalGroups, if that is meant",
        )


def _with_paths(dump: Dump) -> Iterator[tuple[UnixSocket, str]]:
    for file in dump.files:
        if isinstance(file, UnixSocket) and (path := file.path) is not None:
            yield file, path


def live_mounts(dump: Dump, live: RuntimeSpec) -> dict[str, Mount]:
    """The live container's mounts by where they are: as the pod says, and as the kernel does, by way of links."""
    asked = {resolved(mount.destination): mount for mount in live.mounts}
    seen = {
        resolved(entry.mountpoint): mount
        for entry in dump.mounts
        if entry.external is not None and (mount := asked.get(resolved(entry.external)))
    }
    return seen | asked


def innermost(points: Container[str], path: str) -> str:
    while path != "/" and path not in points:
        path = path.rpartition("/")[0] or "/"
    return path
