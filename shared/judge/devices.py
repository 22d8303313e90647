"""Files that CRIU and the runtime would make as root: device nodes, setuid programs, links.

Sources: criu/filesystems.c (tmpfs_restore runs tar), criu/files-reg.c (create_ghost), mknod(2), execve(2),
capabilities(7) (file capabilities), overlayfs.rst (whiteouts).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge.paths import where
from shared.spec import RuntimeSpec

RUNTIME_DEVICES: Final = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
    "/dev/console": (5, 1),
    "/dev/ptmx": (5, 2),
}
"""Character devices every container has (runtime-spec config-linux.md, Default Devices)."""
_WHITEOUT: Final = ("character device", 0, 0)


class Node(Protocol):
    """A device node in an archive."""

    @property
    def path(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def major(self) -> int: ...
    @property
    def minor(self) -> int: ...


class RaisingFile(Protocol):
    """A program in an archive that gives whoever runs it more rights."""

    @property
    def path(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def capabilities(self) -> bool: ...


def device_refusals(dump: Dump, nodes: Sequence[Node], live: RuntimeSpec) -> Iterator[Refused]:
    """DeviceExceeds for a node, in an archive or a deleted file still open, that is not the runtime's nor the pod's.

    A container with CAP_MKNOD may make nodes itself; its device cgroup keeps it from opening them. CRIU opens files
    without that where the runtime is crun, which moves the processes there afterwards (src/libcrun/container.c,
    libcrun_container_restore). So in such a container, too, what CRIU may open is judged: deleted files, and nodes at
    the paths of devices; at no other path is one open (open_files.py).
    """
    known: set[tuple[str, int, int]] = {("character device", *numbers) for numbers in RUNTIME_DEVICES.values()}
    kinds = {"c": "character device", "u": "character device", "b": "block device"}
    known |= {(kinds.get(device.type, ""), device.major, device.minor) for device in live.devices}
    known.add(_WHITEOUT)
    paths = {where(path) for path in (*RUNTIME_DEVICES, *(device.path for device in live.devices))}
    makes_nodes = "CAP_MKNOD" in live.capabilities.bounding
    found: set[tuple[str, str, int, int]] = {
        (node.path, node.kind, node.major, node.minor) for node in nodes if not makes_nodes or where(node.path) in paths
    }
    for ghost in dump.ghosts:
        if stat.S_ISCHR(ghost.mode) or stat.S_ISBLK(ghost.mode):
            kind = "character device" if stat.S_ISCHR(ghost.mode) else "block device"
            found.add(("a deleted file", kind, os.major(ghost.device), os.minor(ghost.device)))
    for path, kind, major, minor in sorted(found):
        if (kind, major, minor) not in known:
            yield Refused(
                "DeviceExceeds",
                f"the checkpoint would make {path} a {kind} {major}:{minor}, which the pod does not give the "
                "container; add the device to the pod or take a new checkpoint",
            )


def setuid_refusals(dump: Dump, programs: Sequence[RaisingFile], live: RuntimeSpec) -> Iterator[Refused]:
    """SetuidExceeds for a program that would give a user without rights those of another one.

    Root may make such programs itself, and with no_new_privs they give nothing.
    """
    if live.uid == 0 or live.no_new_privileges:
        return
    groups = {live.gid, *live.additional_gids}
    found = [(each.path, each.mode, each.uid, each.gid, each.capabilities) for each in programs]
    found += [("a deleted file", ghost.mode, ghost.uid, ghost.gid, False) for ghost in dump.ghosts]
    for path, mode, uid, gid, capabilities in found:
        user = mode & stat.S_ISUID and uid != live.uid
        group = mode & stat.S_ISGID and not stat.S_ISDIR(mode) and gid not in groups
        if user or group or capabilities:
            yield Refused(
                "SetuidExceeds",
                f"the checkpoint would make {path} a program that runs with other rights than the pod's user "
                f"{live.uid} has; set allowPrivilegeEscalation: false, so that it cannot, or take a new checkpoint "
                "without it",
            )
