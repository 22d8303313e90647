"""Files, sockets and devices that the restored processes would have open against what the live spec lets them open.

CRIU opens each again as root before it drops to the dumped credentials (criu/files.c and the files-*.c, sk-*.c).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from shared.compare.paths import MASK, where
from shared.criu.dump import Dump
from shared.criu.open_files import InternetSocket, OpenFile, RegularFile
from shared.criu.tmpfs import DeviceNode
from shared.errors import Refused
from shared.spec import RuntimeSpec

SOCK_RAW: Final = 3
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
_TERMINALS: Final = "/dev/pts/"
_NEEDS: Final = {
    "packetsk": ("CAP_NET_RAW", "a packet socket"),
    "tun": ("CAP_NET_ADMIN", "a tun device"),
    "bpfmap": ("CAP_BPF", "a BPF map"),
    "fanotify": ("CAP_SYS_ADMIN", "a fanotify watch"),
}
_FOREIGN: Final = ("ext",)


def check_open_files(dump: Dump, live: RuntimeSpec) -> None:
    """Raises Refused: FileExceeds naming what is open; ProtectedPathOpen naming the path."""
    masks = {mount.id for mount in dump.mounts if mount.external == MASK}
    for file in dump.files:
        _check_kind(file, live)
        if isinstance(file, RegularFile) and file.mount not in masks:  # whoever opens a masked file gets the mask
            _check_regular(file, live)


def _check_kind(file: OpenFile, live: RuntimeSpec) -> None:
    needed, what = _NEEDS.get(file.kind, ("", ""))
    if isinstance(file, InternetSocket) and file.type == SOCK_RAW:
        needed, what = "CAP_NET_RAW", "a raw socket"
    bounding = live.capabilities.bounding
    if needed and needed not in bounding and not (needed == "CAP_BPF" and "CAP_SYS_ADMIN" in bounding):
        raise Refused(
            "FileExceeds",
            f"the checkpoint has {what} open, which takes {needed} and the pod does not grant it; add it to the "
            "container's capabilities if that is meant",
        )
    if file.kind in _FOREIGN or file.kind.startswith("unknown-") or (isinstance(file, RegularFile) and file.external):
        raise Refused(
            "FileExceeds",
            "the checkpoint has a file of the node open that does not belong to the container; such a file cannot be "
            "restored",
        )


def _check_regular(file: RegularFile, live: RuntimeSpec) -> None:
    path = where(file.path)
    writing = (file.flags & os.O_ACCMODE) != os.O_RDONLY
    masked = _below(path, live.masked_paths)
    if masked or (writing and _below(path, live.readonly_paths)):
        raise Refused(
            "ProtectedPathOpen",
            f"the checkpoint has {file.path} open{'' if masked else ' for writing'}, which the pod's container may not "
            "reach; take the checkpoint from an unprivileged container",
        )
    if file.mode is None or not (stat.S_ISCHR(file.mode) or stat.S_ISBLK(file.mode)):
        return
    known = {*RUNTIME_DEVICES, *(device.path for device in live.devices)}
    if path not in map(where, known) and not path.startswith(_TERMINALS) and not privileged(live):
        raise Refused(
            "DeviceExceeds",
            f"the checkpoint has the device {file.path} open, which the pod does not give the container; add the "
            "device to the pod or take a new checkpoint",
        )


def _below(path: str, protected: Sequence[str]) -> bool:
    return any(path == (top := where(each)) or path.startswith(f"{top}/") for each in protected)


def privileged(live: RuntimeSpec) -> bool:
    """The CRI gives a privileged container every device of the node."""
    return "CAP_SYS_ADMIN" in live.capabilities.bounding and not live.masked_paths


def check_device_nodes(dump: Dump, nodes: Sequence[DeviceNode], live: RuntimeSpec) -> None:
    """Device nodes that CRIU would make: from images of tmpfs, and for deleted files still open.

    Raises Refused("DeviceExceeds") for one that is neither the runtime's nor the pod's, unless the container may make
    nodes itself, which its device cgroup keeps it from opening.
    """
    if "CAP_MKNOD" in live.capabilities.bounding:
        return
    known: set[tuple[str, int, int]] = {("character device", *numbers) for numbers in RUNTIME_DEVICES.values()}
    kinds = {"c": "character device", "u": "character device", "b": "block device"}
    known |= {(kinds.get(device.type, ""), device.major, device.minor) for device in live.devices}
    found: set[tuple[str, str, int, int]] = {(node.path, node.kind, node.major, node.minor) for node in nodes}
    for ghost in dump.ghosts:
        if stat.S_ISCHR(ghost.mode) or stat.S_ISBLK(ghost.mode):
            kind = "character device" if stat.S_ISCHR(ghost.mode) else "block device"
            found.add(("a deleted file", kind, os.major(ghost.device), os.minor(ghost.device)))
    for path, kind, major, minor in sorted(found):
        if (kind, major, minor) not in known:
            raise Refused(
                "DeviceExceeds",
                f"the checkpoint would make {path} a {kind} {major}:{minor}, which the pod does not give the "
                "container; add the device to the pod or take a new checkpoint",
            )
