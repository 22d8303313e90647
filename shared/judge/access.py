"""Mounts that the pod gives read-only, and what the checkpoint has open for writing on them.

CRIU mounts the root and volumes as the pod has them (mount_images.py), so a file that is open for writing on one that
is read-only could not be opened; this says so before. What is mounted below a volume, CRIU leaves as it is: where the
pod asks for that to be read-only too, it is made so before the processes run.
Sources: criu/mount-v2.c (do_bind_mount_v2), runc libcontainer/rootfs_linux.go (setRecAttr), KEP-3857 (recursive
read-only mounts).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from shared.criu.dump import Dump
from shared.criu.open_files import RegularFile
from shared.errors import Refused
from shared.judge.memory import files_written_by_mappings
from shared.judge.paths import is_bind, is_read_only, where
from shared.spec import RuntimeSpec


def recursive_read_only(live: RuntimeSpec) -> tuple[str, ...]:
    """Where the pod mounts volumes that are read-only with all that is mounted below them."""
    return tuple(mount.destination for mount in live.mounts if "rro" in mount.options)


def access_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """WritableFileOpen, naming the file."""
    read_only = _read_only_mounts(dump, live)
    mapped = files_written_by_mappings(dump.source, dump) if read_only else set()
    for file in dump.files:
        if not isinstance(file, RegularFile) or file.mount not in read_only:
            continue
        writing = file.flags & os.O_ACCMODE != os.O_RDONLY and not file.flags & os.O_PATH
        if (writing or (file.kind, file.id) in mapped) and (file.mode is None or stat.S_ISREG(file.mode)):
            yield writable_file_open(read_only[file.mount], file.path)


def _read_only_mounts(dump: Dump, live: RuntimeSpec) -> dict[int, str]:
    """Place of each mount of the dump, by its number, that is the root or a volume and that the pod has read-only."""
    mounts = {where(mount.destination): mount for mount in live.mounts if is_bind(mount.type, mount.options)}
    found = {}
    for entry in dump.mounts:
        if entry.namespace != dump.root.ids.mnt_ns:
            continue
        path = where(entry.mountpoint)
        asked = mounts.get(path) if entry.external is not None and where(entry.external) == path else None
        if live.root_readonly if path == "/" else asked is not None and is_read_only(asked.options):
            found[entry.id] = entry.mountpoint
    return found


def writable_file_open(mount: str, file: str) -> Refused:
    """``mount``: the mount point that is to become read-only."""
    what, field = ("a read-only root", "readOnlyRootFilesystem") if mount == "/" else (f"{mount} read-only", "readOnly")
    return Refused(
        "WritableFileOpen",
        f"the pod asks for {what}, but the checkpoint has {file} open there for writing, which would let it write on; "
        f"remove {field} from the pod there, or take a new checkpoint when the file is closed",
    )
