"""Flags and options of a dumped mount against those of the live spec's mount.

Sources: mount(8), tmpfs(5), linux/mount.h, criu/mount.c (do_new_mount).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from shared.criu.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MountEntry
from shared.spec import Mount

_FLAGS: Final[Mapping[str, int]] = {"nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}
_ALL_FLAGS: Final[Mapping[str, int]] = {
    **_FLAGS,
    "ro": MS_RDONLY,
    "rro": MS_RDONLY,
    "noatime": 1 << 10,
    "nodiratime": 1 << 11,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
}
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


_OWN: Final[Mapping[str, frozenset[str]]] = {
    "tmpfs": frozenset({"size", "nr_blocks", "nr_inodes", "mode", "uid", "gid"}),
    "devpts": frozenset({"gid", "uid", "mode", "ptmxmode", "max"}),
}
"""Numbers that a process gave a file system of its own."""
_NUMBER: Final = re.compile(r"\d{1,19}[kmgt]?", re.IGNORECASE)


def flags_of(options: Sequence[str]) -> int:
    """MS_… that the options of a spec's mount stand for, those of the mount itself."""
    flags = 0
    for option in options:
        flags |= _ALL_FLAGS.get(option, 0)
    return flags


def data_of(fstype: str, options: Sequence[str]) -> str:
    """What of a spec's options goes to the file system itself."""
    known = _KNOWN.get(fstype, frozenset()) - {"seclabel"}
    return ",".join(option for option in options if option.partition("=")[0] in known)


def own_options(fstype: str, dumped: str) -> str:
    """Of the options that a process gave its own mount, size and rights."""
    known = _OWN.get(fstype, frozenset())
    pairs = (option.partition("=") for option in dumped.split(","))
    return ",".join(f"{name}={value}" for name, _, value in pairs if name in known and _NUMBER.fullmatch(value))


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
