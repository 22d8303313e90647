"""Mounts that the pod gives with another access than the checkpoint had them: put right in the restored mount tree.

CRIU restores the dumped access. A mount's own read-only flag can be changed afterwards, before the processes run, and
holds for what they have open too; but the kernel sets it on no mount on which a file is open for writing, or mapped so
(EBUSY). Sources: mount_setattr(2), linux fs/namespace.c (mnt_hold_writers), criu/mount.c (restore_ext_mount), runc
libcontainer/rootfs_linux.go (remount, setRecAttr), KEP-3857 (recursive read-only mounts).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shared.criu.dump import Dump
from shared.criu.mounts import MS_RDONLY, MountEntry
from shared.criu.open_files import RegularFile
from shared.errors import Refused
from shared.judge.memory import files_written_by_mappings
from shared.judge.paths import is_bind, is_read_only, where
from shared.spec import RuntimeSpec

Access = Literal["ro", "rro", "rw"]
"""``rro``: with what is mounted below it (runtime-spec config.md, Linux mount options)."""


@dataclass(frozen=True, slots=True)
class AccessChange:
    """What a mount of the dump is made."""

    path: str
    """Where the dump has it."""
    access: Access
    mount: int
    """MountEntry.id."""


def access_changes(dump: Dump, live: RuntimeSpec) -> tuple[AccessChange, ...]:
    """Of the root and of the pod's volumes, in the dump's order; the runtime's own mounts are compared, not changed.

    A file system that was read-only itself (sb_flags) counts as writable: the pod's may be another one.
    """
    mounts = {where(mount.destination): mount for mount in live.mounts if is_bind(mount.type, mount.options)}
    found = []
    for entry in dump.mounts:
        if entry.namespace != dump.root.ids.mnt_ns:
            continue
        path = where(entry.mountpoint)
        if path == "/":
            found += _change(entry, "ro" if live.root_readonly else "rw")
        elif entry.external is not None and where(entry.external) == path and (asked := mounts.get(path)):
            wanted: Access = "rro" if "rro" in asked.options else "ro" if is_read_only(asked.options) else "rw"
            found += _change(entry, wanted)
    return tuple(found)


def _change(entry: MountEntry, wanted: Access) -> list[AccessChange]:
    read_only = bool(entry.flags & MS_RDONLY)
    return [] if read_only == (wanted != "rw") else [AccessChange(entry.mountpoint, wanted, entry.id)]


def access_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """WritableFileOpen: the kernel would not make the mount read-only, and the file could be written on."""
    tightened = {each.mount: each.path for each in access_changes(dump, live) if each.access != "rw"}
    mapped = files_written_by_mappings(dump.source, dump) if tightened else set()
    for file in dump.files:
        if not isinstance(file, RegularFile) or file.mount not in tightened:
            continue
        writing = file.flags & os.O_ACCMODE != os.O_RDONLY and not file.flags & os.O_PATH
        if (writing or (file.kind, file.id) in mapped) and (file.mode is None or stat.S_ISREG(file.mode)):
            yield writable_file_open(tightened[file.mount], file.path)


def writable_file_open(mount: str, file: str) -> Refused:
    """``mount``: the mount point that is to become read-only."""
    what, field = ("a read-only root", "readOnlyRootFilesystem") if mount == "/" else (f"{mount} read-only", "readOnly")
    return Refused(
        "WritableFileOpen",
        f"the pod asks for {what}, but the checkpoint has {file} open there for writing, which would let it write on; "
        f"remove {field} from the pod there, or take a new checkpoint when the file is closed",
    )
