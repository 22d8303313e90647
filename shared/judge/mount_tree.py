"""The mount tree CRIU would rebuild against the live spec's: paths, kinds, roots, flags, masks.

CRIU takes only the source of an external mount from the live spec, everything else from the dump, and mounts what it
knows (proc, sysfs, tmpfs …) anew wherever the dump says. It builds the tree before it changes root, so that a bind
mount of the dump's own making may lead through a link to the node's files (criu/mount-v2.c do_bind_mount_v2), and it
deletes what a "deleted" mount shows (remove_source_of_deleted_mount). The spec.dump of the same archive may say
something else, so mounts.py alone, which explains better, is not enough. Compare CVE-2017-1002101, CVE-2021-30465.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from shared.criu.dump import Dump
from shared.criu.mounts import MountEntry
from shared.errors import Refused
from shared.judge.mount_options import foreign_option, lost_flag, too_large
from shared.judge.paths import is_bind, is_mask, is_read_only, may_mount, spelt_once, where
from shared.spec import Mount, RuntimeSpec

CGROUPS: Final = "/sys/fs/cgroup"
PROPAGATION: Final = frozenset(f"{r}{kind}" for r in ("", "r") for kind in ("private", "shared", "slave", "unbindable"))
_HARMLESS: Final = frozenset({"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2"})
"""What a container with CAP_SYS_ADMIN may mount by itself and that shows nothing of the node's disks."""
_TERMINAL: Final = re.compile(r"/[0-9]{1,4}")
"""A pseudoterminal in its devpts: CRIU makes as many as the number says (criu/tty.c, devpts_restore)."""
_MISSING: Final = "which the pod's container does not have"


class Tree:
    """The dump's mounts by what the live container has at their places."""

    def __init__(self, dump: Dump, live: RuntimeSpec) -> None:
        self.dump = dump
        self.live = live
        self.mounts: Mapping[str, Mount] = {where(mount.destination): mount for mount in live.mounts}
        self.masked = frozenset(map(where, live.masked_paths))
        self.read_only = frozenset(map(where, live.readonly_paths))
        self.own_cgroups = any(each.type == "cgroup" and not each.path for each in live.namespaces)
        """Whether the container has a cgroup namespace of its own."""
        self.own = [mount for mount in dump.mounts if mount.namespace == dump.root.ids.mnt_ns]
        """In the container's own mount namespace, not in one that its processes made."""
        numbers = {mount.id for mount in dump.mounts}
        self._roots = {mount.id for mount in dump.mounts if mount.parent not in numbers or mount.parent == mount.id}
        self._processes_at = {"/proc"} | {where(mount.mountpoint) for mount in dump.mounts if mount.fstype == "proc"}
        self._at: dict[tuple[str, int, str], MountEntry] = {}
        self._whole: dict[tuple[int, str], MountEntry] = {}
        for mount in dump.mounts:
            if mount.namespace == dump.root.ids.mnt_ns:
                self._at.setdefault((mount.mountpoint, mount.device, mount.root), mount)
            if mount.external is None and mount.root == "/" and mount.id not in self._roots:
                self._whole.setdefault((mount.device, mount.fstype), mount)

    def is_root(self, mount: MountEntry) -> bool:
        """Whether all others of its mount namespace are in it."""
        return mount.id in self._roots

    def original(self, mount: MountEntry) -> MountEntry | None:
        """The container's own mount that a process' mount namespace has a copy of."""
        if mount.namespace == self.dump.root.ids.mnt_ns or mount.external is not None:
            return None
        return self._at.get((mount.mountpoint, mount.device, mount.root))

    def first_of(self, mount: MountEntry) -> MountEntry:
        """The mount that CRIU makes of this file system, from which it binds the others."""
        return self._whole.get((mount.device, mount.fstype), mount)

    def is_cover(self, mount: MountEntry) -> bool:
        """Whether it hides a directory of /proc or /sys, whether or not the live pod hides it too."""
        path = where(mount.mountpoint)
        return (
            mount.fstype == "tmpfs"
            and mount.readonly
            and mount.root == "/"
            and mount.external is None
            and path not in self.mounts
            and path.startswith(("/proc/", "/sys/"))
            and path != CGROUPS
        )

    def shown_by(self, mount: MountEntry) -> MountEntry | None:
        """The file system of which a read-only path of /proc or /sys, or the console, shows a part."""
        path = where(mount.mountpoint)
        if mount.external is not None or mount.namespace != self.dump.root.ids.mnt_ns:
            return None
        if path == "/dev/console" and self.live.terminal and mount.fstype == "devpts":
            found = self.first_of(mount) if _TERMINAL.fullmatch(mount.root) else None
        elif path in self.read_only and mount.fstype in ("proc", "sysfs"):
            top = "/proc" if path.startswith("/proc/") else "/sys"
            first = self.first_of(mount)
            found = first if where(first.mountpoint) == top and mount.root == path.removeprefix(top) else None
        else:
            return None
        return None if found is mount else found

    def in_a_process(self, path: str) -> bool:
        """Whether it is below a directory of a process in some proc file system."""
        for top in self._processes_at:
            if path.startswith(f"{top}/"):
                name = path.removeprefix(f"{top}/").partition("/")[0]
                if name.isdecimal() or name in ("self", "thread-self"):
                    return True
        return False

    def may_mount_itself(self, mount: MountEntry) -> bool:
        """Whether a process of the pod could have mounted it."""
        return may_mount(self.live) and mount.external is None and mount.fstype in _HARMLESS and mount.root == "/"


def mount_tree_refusals(dump: Dump, live: RuntimeSpec) -> Iterator[Refused]:
    """MountTreeDiffers, naming the mount."""
    tree = Tree(dump, live)
    if not may_mount(live):
        yield from _check_shape(tree.own)
    for mount in dump.mounts:
        if why := _why_not(mount, tree):
            yield differs(mount, why)
    yield from _check_devices(tree)


def _why_not(mount: MountEntry, tree: Tree) -> str:
    path = where(mount.mountpoint)
    asked = tree.mounts.get(path)
    if mount.deleted or mount.root.endswith("//deleted"):
        return "of something deleted, which CRIU would delete again"
    if mount.by_plugin:
        return "by a plugin of CRIU"
    if mount.mountpoint != spelt_once(mount.mountpoint):
        return "which is not spelt as the kernel does"
    if tree.in_a_process(path):
        return "in a directory of a process, whose links lead elsewhere"
    if (path == "/") != tree.is_root(mount):
        return "over the root"
    if mount.namespace != tree.dump.root.ids.mnt_ns:
        kept = tree.original(mount) is not None or (
            tree.may_mount_itself(mount) and (path != "/" or mount.fstype == "tmpfs")
        )
        return "" if kept else "in a mount namespace of a process, which no mount of the container is like"
    if path == "/":
        return ""
    if why := _sharing(mount, tree.live):
        return why
    if mount.external is not None:
        return _external(mount, path, tree.mounts, tree.live)
    return "" if tree.may_mount_itself(mount) else _made(mount, path, asked, tree)


def _check_shape(entries: Sequence[MountEntry]) -> Iterator[Refused]:
    """One mount at each place, in the mount that shows the place: else one could lie hidden below another."""
    places: dict[str, MountEntry] = {}
    found: dict[str, MountEntry] = {}
    for entry in entries:
        places[spelt_once(entry.mountpoint)] = entry
        if found.setdefault(where(entry.mountpoint), entry) is not entry:
            yield differs(entry, "twice, one over the other")
    for parent, entry in places.items():
        while parent != "/":
            parent = parent.rpartition("/")[0] or "/"
            if parent in places:
                if places[parent].id != entry.parent:
                    yield differs(entry, f"not in the mount at {parent} that shows the place")
                break


def _check_devices(tree: Tree) -> Iterator[Refused]:
    """CRIU binds one mount from another with the number of the same file system, so these are of one kind.

    Others than tmpfs may be a volume's too: /proc and /sys are one file system for all who share the namespaces.
    """
    kinds: dict[int, str] = {}
    volumes = {
        mount.device
        for mount in tree.own
        if tree.is_root(mount) or (mount.external is not None and not is_mask(mount, tree.live))
    }
    for mount in tree.own:
        if mount.external is not None or tree.is_root(mount):
            continue
        if mount.fstype == "tmpfs" and mount.device in volumes:
            yield differs(mount, "which shows a volume or the root a second time")
        elif kinds.setdefault(mount.device, mount.fstype) != mount.fstype:
            yield differs(mount, f"with the number of a {kinds[mount.device]} file system")


def _sharing(mount: MountEntry, live: RuntimeSpec) -> str:
    shares, follows = takes_propagation(mount, live)
    if mount.shared_id and not shares:
        return "shared with other namespaces, which the pod's container does not have"
    if mount.master_id and not follows:
        return "following another namespace's mounts, which the pod's container does not"
    return ""


def takes_propagation(mount: MountEntry, live: RuntimeSpec) -> tuple[bool, bool]:
    """Whether the live pod's mount there shares what is mounted in it, and whether it follows the node's."""
    path = where(mount.mountpoint)
    asked = next((each for each in live.mounts if where(each.destination) == path), None)
    options = {*(asked.options if asked else ()), live.rootfs_propagation}
    shares = bool(options & {"shared", "rshared"})
    follows = bool(options & {"slave", "rslave"}) or _follows(asked) or mount.mountpoint.startswith(f"{CGROUPS}/")
    return shares, shares or follows


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


def _made(entry: MountEntry, path: str, asked: Mount | None, tree: Tree) -> str:
    """Mounts of the spec, what runc puts over masked and read-only paths, a terminal."""
    if path in tree.masked:
        return "" if tree.is_cover(entry) and not foreign_option(entry) else "which is masked in the pod's container"
    if path in tree.read_only:
        shown = entry.readonly and tree.shown_by(entry) is not None
        return "" if shown else "which is read-only in the pod's container"
    if path == "/dev/console":
        return "" if tree.shown_by(entry) is not None else _MISSING
    if path == CGROUPS or path.startswith(f"{CGROUPS}/"):
        return _cgroup(entry, path, tree)
    if asked is None:
        # Masked where it was dumped, and covered by a mount that shows nothing.
        return "" if tree.is_cover(entry) and not foreign_option(entry) else _MISSING
    if entry.fstype != asked.type or entry.root != "/":
        return _MISSING
    return _access(entry, asked) or foreign_option(entry) or too_large(entry, asked)


def _cgroup(entry: MountEntry, path: str, tree: Tree) -> str:
    """Hierarchies of cgroup v1 are handed in, or mounted anew in a cgroup namespace, where they show the container's.

    Source: runc libcontainer/criu_linux.go (addCriuRestoreMount for each of getCgroupMounts).
    """
    asked = tree.mounts.get(CGROUPS)
    kinds = {"cgroup2", "tmpfs"} if path == CGROUPS else {"cgroup2"}
    if tree.own_cgroups and path != CGROUPS:
        kinds.add("cgroup")
    if asked is None or entry.fstype not in kinds or entry.root != "/":
        return _MISSING
    # The tmpfs that holds cgroup v1's hierarchies is writable in every container; they themselves are not.
    return "" if entry.fstype == "tmpfs" else _access(entry, asked)


def _access(entry: MountEntry, asked: Mount) -> str:
    if is_read_only(asked.options) and not entry.readonly:
        return "writable, which the pod declares read-only"
    return lost_flag(entry, asked)


def differs(entry: MountEntry, why: str) -> Refused:
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
