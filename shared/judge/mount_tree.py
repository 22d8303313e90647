"""The mount tree CRIU would rebuild against the live spec's: paths, kinds, roots, flags, masks.

CRIU takes only the source of an external mount from the live spec, everything else from the dump, and mounts what it
knows (proc, sysfs, tmpfs …) anew wherever the dump says. It builds the tree before it changes root, so that a bind
mount of the dump's own making may lead through a link to the node's files (criu/mount-v2.c do_bind_mount_v2), and it
deletes what a "deleted" mount shows (remove_source_of_deleted_mount). The spec.dump of the same archive may say
something else, so mounts.py alone, which explains better, is not enough. Compare CVE-2017-1002101, CVE-2021-30465.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from shared.criu.dump import Dump
from shared.criu.mounts import MountEntry
from shared.errors import Refused
from shared.judge.mount_options import foreign_option, lost_flag, too_large
from shared.judge.paths import is_bind, is_mask, is_read_only, spelt_once, where
from shared.spec import Mount, RuntimeSpec

CGROUPS: Final = "/sys/fs/cgroup"
PROPAGATION: Final = frozenset(f"{r}{kind}" for r in ("", "r") for kind in ("private", "shared", "slave", "unbindable"))
_HARMLESS: Final = frozenset({"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2"})
"""What a container with CAP_SYS_ADMIN may mount by itself and that shows nothing of the node's disks."""


def mount_tree_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """MountTreeDiffers, naming the mount. Whether root and volumes are read-only is put right (access.py)."""
    mounts = {where(mount.destination): mount for mount in live.mounts}
    entries = [entry for entry in dump.mounts if entry.namespace == dump.root.ids.mnt_ns]
    may_mount = "CAP_SYS_ADMIN" in live.capabilities.bounding
    if not may_mount:
        yield from _check_shape(entries)
    for entry in entries:
        path = where(entry.mountpoint)
        if path == "/":
            continue
        why = _never(entry, mounts.get(path), live)
        if not why and entry.external is not None:
            why = _external(entry, path, mounts, live)
        elif not why and not (may_mount and entry.fstype in _HARMLESS and entry.root == "/"):
            why = _made(entry, path, mounts.get(path), live)
        if why:
            yield _differs(entry, why)


def _check_shape(entries: Sequence[MountEntry]) -> Iterator[Refused]:
    """One mount at each place, in the mount that shows the place: else one could lie hidden below another."""
    places: dict[str, MountEntry] = {}
    found: dict[str, MountEntry] = {}
    for entry in entries:
        places[spelt_once(entry.mountpoint)] = entry
        if found.setdefault(where(entry.mountpoint), entry) is not entry:
            yield _differs(entry, "twice, one over the other")
    for parent, entry in places.items():
        while parent != "/":
            parent = parent.rpartition("/")[0] or "/"
            if parent in places:
                if places[parent].id != entry.parent:
                    yield _differs(entry, f"not in the mount at {parent} that shows the place")
                break


def _never(entry: MountEntry, asked: Mount | None, live: RuntimeSpec) -> str:
    """What no pod can ask for."""
    if entry.deleted or entry.root.endswith("//deleted"):
        return "of something deleted, which CRIU would delete again"
    if entry.by_plugin:
        return "by a plugin of CRIU"
    options = (*(asked.options if asked else ()), live.rootfs_propagation)
    if entry.shared_id and not {"shared", "rshared"}.intersection(options):
        return "shared with other namespaces, which the pod's container does not have"
    taking = {"slave", "rslave", "shared", "rshared"}.intersection(options) or _follows(asked)
    if entry.master_id and not taking and not entry.mountpoint.startswith(f"{CGROUPS}/"):
        return "following another namespace's mounts, which the pod's container does not"
    return ""


def _follows(asked: Mount | None) -> bool:
    """A bind mount of which the spec says nothing follows the node's, as CRI-O leaves those of a pod's own files.

    Source: runc libcontainer/rootfs_linux.go prepareRoot: the root is made a recursive slave before the mounts.
    """
    return asked is not None and is_bind(asked.type, asked.options) and not PROPAGATION.intersection(asked.options)


def _external(entry: MountEntry, path: str, mounts: Mapping[str, Mount], live: RuntimeSpec) -> str:
    """A key is resolved to the live mount of that destination, wherever the dump wants it."""
    if is_mask(entry, live):
        return "" if path.startswith(("/proc/", "/sys/")) else "as a mask, where the pod's container has none"
    if path.startswith(f"{CGROUPS}/"):
        if entry.external != entry.mountpoint or entry.fstype != "cgroup":
            return "which is no cgroup hierarchy of the pod's container"
        asked = mounts.get(CGROUPS)
        return "" if asked is None else _access(entry, asked)
    found = mounts.get(where(entry.external or ""))
    if found is None or path != where(found.destination) or not is_bind(found.type, found.options):
        return "which the pod's container does not have there"
    return lost_flag(entry, found)


def _made(entry: MountEntry, path: str, asked: Mount | None, live: RuntimeSpec) -> str:
    """Mounts of the spec, what runc puts over masked and read-only paths, a terminal."""
    missing = "which the pod's container does not have"
    if path in map(where, live.masked_paths):
        return "" if _is_cover(entry) else "which is masked in the pod's container"
    if path in map(where, live.readonly_paths):
        top = "/proc" if path.startswith("/proc/") else "/sys"
        same = entry.fstype in ("proc", "sysfs") and entry.root == path.removeprefix(top)
        return "" if same and entry.readonly else "which is read-only in the pod's container"
    if path == "/dev/console":
        return "" if live.terminal and entry.fstype == "devpts" else missing
    if path == CGROUPS or path.startswith(f"{CGROUPS}/"):
        return _cgroup(entry, path, asked, live)
    if asked is None:
        # Masked where it was dumped, and covered by a mount that shows nothing.
        return "" if _is_cover(entry) and path.startswith(("/proc/", "/sys/")) else missing
    if entry.fstype != asked.type or entry.root != "/":
        return missing
    return _access(entry, asked) or foreign_option(entry) or too_large(entry, asked)


def _is_cover(entry: MountEntry) -> bool:
    return entry.fstype == "tmpfs" and entry.readonly and entry.root == "/" and not foreign_option(entry)


def _cgroup(entry: MountEntry, path: str, asked: Mount | None, live: RuntimeSpec) -> str:
    """Without a cgroup namespace, cgroup v1 hierarchies are handed in: a new mount would show the node's."""
    kinds = {"cgroup2"} | ({"tmpfs"} if path == CGROUPS else set())
    if any(namespace.type == "cgroup" for namespace in live.namespaces):
        kinds.add("cgroup")
    if (
        (asked is None and path == CGROUPS)
        or entry.fstype not in kinds
        or (entry.fstype != "cgroup" and entry.root != "/")
    ):
        return "which the pod's container does not have"
    # The tmpfs that holds cgroup v1's hierarchies is writable in every container; they themselves are not.
    return "" if entry.fstype == "tmpfs" or asked is None else _access(entry, asked)


def _access(entry: MountEntry, asked: Mount) -> str:
    if is_read_only(asked.options) and not entry.readonly:
        return "writable, which the pod declares read-only"
    return lost_flag(entry, asked)


def _differs(entry: MountEntry, why: str) -> Refused:
    kind = f"{entry.fstype} " if entry.fstype else ""
    return Refused(
        "MountTreeDiffers",
        f"the checkpoint would mount {kind}{entry.mountpoint}, {why}; take a new checkpoint from a container with the "
        "pod's mounts",
    )


def uncovered(
    dump: Dump, live: RuntimeSpec, *, present: Callable[[str], bool] = os.path.lexists
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths that the pod masks, and those it makes read-only, which this node has and the dump leaves open.

    ``present``: whether the node has a path in its own /proc or /sys, which a container's show. A path that the dump's
    node did not have has no mount there.
    """
    covered = {where(entry.mountpoint) for entry in dump.mounts if entry.namespace == dump.root.ids.mnt_ns}
    masked, read_only = (
        tuple(
            where(path)
            for path in paths
            if where(path).startswith(("/proc/", "/sys/")) and not _covers(covered, where(path)) and present(path)
        )
        for paths in (live.masked_paths, live.readonly_paths)
    )
    return masked, read_only


def _covers(covered: set[str], path: str) -> bool:
    """The mount itself, or one of a folder above it, below /proc and /sys."""
    while path.count("/") > 1:
        if path in covered:
            return True
        path = path.rpartition("/")[0]
    return False
