"""Flags and options of a dumped mount against those of the live spec's mount.

Sources: mount(8), tmpfs(5), linux/mount.h, criu/mount.c (do_new_mount).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shared.criu.mounts import MountEntry
from shared.spec import Mount

_FLAGS: Final[Mapping[str, int]] = {"nosuid": 2, "nodev": 4, "noexec": 8}
_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "tmpfs": frozenset({
        "size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "inode32", "inode64", "noswap", "huge", "mpol",
        "seclabel",
    }),
    "devpts": frozenset({"gid", "uid", "mode", "ptmxmode", "newinstance", "max", "seclabel"}),
    "proc": frozenset({"hidepid", "subset"}),
    "sysfs": frozenset({"seclabel"}),
    "mqueue": frozenset({"seclabel"}),
}  # fmt: skip
"""CRIU hands a dumped mount's options to mount(2); none of these shows or grants anything."""
_SIZE: Final = re.compile(r"(\d{1,19})([kmgt]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def lost_flag(entry: MountEntry, asked: Mount) -> str:
    """Why not, when the live mount has nosuid, nodev or noexec and the dumped one lacks it."""
    for option, flag in _FLAGS.items():
        if option in asked.options and not entry.flags & flag:
            return f"without {option}, which the pod's container has there"
    return ""


def foreign_option(entry: MountEntry) -> str:
    """Why not, when it has an option that is not known to be harmless."""
    known = _KNOWN.get(entry.fstype)
    if known is None:
        return ""
    for option in filter(None, entry.options.split(",")):
        if option.partition("=")[0] not in known:
            return f"with the option {option[:40]!r}"
    return ""


def too_large(entry: MountEntry, asked: Mount) -> str:
    """Why not, when the live tmpfs is limited and the dumped one less."""
    if entry.fstype != "tmpfs" or (limit := size_of(",".join(asked.options))) is None:
        return ""
    size = size_of(entry.options)
    return "" if size is not None and size <= limit else f"with more than the {limit} bytes of the pod's container"


def size_of(options: str) -> int | None:
    """Bytes of the last ``size=``; None without one, or for a share of the memory."""
    found = None
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name == "size" and (match := _SIZE.fullmatch(value)):
            found = int(match[1]) * _UNITS[match[2].lower()]
    return found
