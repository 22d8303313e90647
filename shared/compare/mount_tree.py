"""The mount tree CRIU would rebuild against the live spec's: paths, kinds and read-only flags.

CRIU takes only the source of an external mount from the live spec, everything else from the dump, and mounts what it
knows (proc, sysfs, tmpfs …) anew wherever the dump says (criu/mount.c, runc libcontainer/criu_linux.go). The spec.dump
of the same archive may say something else, so mounts.py alone, which explains better, is not enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.compare.paths import MASK, is_bind, is_read_only, where
from shared.compare.settings import read_only_root_differs
from shared.criu.dump import Dump
from shared.criu.mounts import MountEntry
from shared.errors import Refused
from shared.spec import Mount, RuntimeSpec

CGROUPS = "/sys/fs/cgroup"


def check_mount_tree(dump: Dump, live: RuntimeSpec) -> None:
    """Raises Refused: ReadOnlyRootDiffers, MountTreeDiffers; each names the mount."""
    mounts = {where(mount.destination): mount for mount in live.mounts}
    for entry in dump.mounts:
        if entry.namespace != dump.root.ids.mnt_ns:
            continue
        path = where(entry.mountpoint)
        if path == "/":
            if live.root_readonly and not entry.readonly:
                raise read_only_root_differs(dumped=False)
        elif entry.external is not None:
            _check_external(entry, path, mounts)
        elif not _may_be_made(entry, path, mounts.get(path), live):
            raise _differs(entry, "which the pod's container does not have")


def _check_external(entry: MountEntry, path: str, mounts: dict[str, Mount]) -> None:
    """A key is resolved to the live mount of that destination, wherever the dump wants it."""
    if entry.external == MASK or path.startswith(f"{CGROUPS}/"):
        return
    found = mounts.get(where(entry.external or ""))
    if found is None or path != where(found.destination) or not is_bind(found.type, found.options):
        raise _differs(entry, "which the pod's container does not have there")
    if is_read_only(found.options) and not entry.readonly:
        raise _differs(entry, "writable, which the pod declares read-only")


def _may_be_made(entry: MountEntry, path: str, asked: Mount | None, live: RuntimeSpec) -> bool:
    """Mounts of the spec, what runc puts over masked and read-only paths, a terminal; more only with CAP_SYS_ADMIN."""
    if "CAP_SYS_ADMIN" in live.capabilities.bounding:
        return True
    if path in map(where, live.masked_paths):
        return entry.readonly
    if path in map(where, live.readonly_paths):
        return entry.readonly and entry.fstype in ("proc", "sysfs")
    if path == "/dev/console":
        return entry.fstype == "devpts"
    if path == CGROUPS or path.startswith(f"{CGROUPS}/"):
        return entry.fstype in ("tmpfs", "cgroup", "cgroup2")
    if asked is None:
        # Masked where it was dumped, and covered by a mount that shows nothing.
        return entry.fstype == "tmpfs" and entry.readonly and path.startswith(("/proc/", "/sys/"))
    return entry.fstype == asked.type and (entry.readonly or not is_read_only(asked.options))


def _differs(entry: MountEntry, why: str) -> Refused:
    kind = f"{entry.fstype} " if entry.fstype else ""
    return Refused(
        "MountTreeDiffers",
        f"the checkpoint would mount {kind}{entry.mountpoint}, {why}; take a new checkpoint from a container with the "
        "pod's mounts",
    )


def uncovered(dump: Dump, live: RuntimeSpec) -> tuple[Sequence[str], Sequence[str]]:
    """Masked and read-only paths of the pod that no mount of the dump covers."""
    covered = {where(entry.mountpoint) for entry in dump.mounts if entry.namespace == dump.root.ids.mnt_ns}
    masked = [path for path in live.masked_paths if where(path) not in covered]
    readonly = [path for path in live.readonly_paths if where(path) not in covered]
    return masked, readonly
