"""The mount tree of a dump. Sources: images/mnt.proto, criu/mount.c (dump_one_mountpoint), linux/mount.h."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.criu.criu_pb2 import MntEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind, path_text, text

MOUNTS_MAX: Final = 100_000
"""Linux' own limit for a namespace (fs.mount-max)."""
OPTIONS_BYTES_MAX: Final = 64 << 10
"""An overlay lists the folder of each of its layers."""
MOUNT_ID_MAX: Final = (1 << 31) - 1
"""CRIU keeps it in an int, and takes 0 for one of its own (criu/include/mount.h, HELPER_MNT_ID)."""
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
FILE_SYSTEMS: Final = {
    1: "proc",
    2: "sysfs",
    3: "devtmpfs",
    4: "binfmt_misc",
    5: "tmpfs",
    6: "devpts",
    7: "simfs",
    8: "pstore",
    9: "securityfs",
    10: "fusectl",
    11: "debugfs",
    12: "cgroup",
    13: "aufs",
    14: "mqueue",
    15: "fuse",
    17: "overlay",
    18: "autofs",
    19: "tracefs",
    23: "cgroup2",
}
_AUTO: Final = 16


@dataclass(frozen=True, slots=True)
class MountEntry:
    namespace: int
    """CRIU's number of the mount namespace, as in TaskIds.mnt_ns."""
    id: int
    parent: int
    mountpoint: str
    """In the container, absolute."""
    fstype: str
    """Empty where CRIU does not know the file system, as for every bind mount of a file of the node."""
    source: str
    root: str
    """What of the file system is mounted; ends ``//deleted`` when it is gone."""
    flags: int
    """MS_… of linux/mount.h."""
    sb_flags: int
    options: str
    device: int
    """CRIU's number of the file system, as in the name of a tmpfs' image: ``tmpfs-dev-<device>.tar.gz.img``."""
    external: str | None
    """The key under which runc hands the mount in at restore: the mountpoint, or /dev/null for a masked file."""
    shared_id: int
    master_id: int
    deleted: bool
    by_plugin: bool = False
    """Left to a plugin of CRIU."""

    @property
    def readonly(self) -> bool:
        """CRIU sets it for the mount, or for the whole file system."""
        return bool((self.flags | self.sb_flags) & MS_RDONLY)


def read_mounts(images: ImageDirectory, namespaces: tuple[int, ...]) -> tuple[MountEntry, ...]:
    """The mounts of each mount namespace, in the image's order.

    Raises CheckpointInvalid: FileMissing, WrongMagic, ImageDamaged, ImagePath.
    """
    found = tuple(mount for namespace in namespaces for mount in _namespace(images, namespace))
    if len({mount.id for mount in found}) != len(found):
        # CRIU finds a mount by its number alone, in whichever namespace it comes first (mount.c, lookup_mnt_id).
        raise damaged(images.path(Kind.MNTS.file(namespaces[-1])), "has a mount of another mount namespace")
    return found


def _namespace(images: ImageDirectory, namespace: int) -> list[MountEntry]:
    name = images.path(Kind.MNTS.file(namespace))
    entries = images.entries(Kind.MNTS, MntEntry, namespace)
    if len(entries) > MOUNTS_MAX or len({entry.mnt_id for entry in entries}) != len(entries):
        raise damaged(name, "has too many mounts, or one twice")
    mounts = [_mount(entry, namespace, name) for entry in entries]
    _check_tree(mounts, name)
    return mounts


def _check_tree(mounts: list[MountEntry], name: str) -> None:
    """One root, and every other mount below it: of the rest, CRIU would mount nothing, or take it for a second root."""
    parents = {mount.id: mount.parent for mount in mounts}
    roots = [mount for mount in mounts if mount.parent not in parents or mount.parent == mount.id]
    if len(roots) != 1 or roots[0].mountpoint != "/":
        raise damaged(name, "has no mount at / that all others are in, or several")
    reached = {roots[0].id}
    for mount in mounts:
        chain: list[int] = []
        at = mount.id
        while at not in reached and len(chain) <= len(mounts):
            chain.append(at)
            at = parents[at]
        if at not in reached:
            raise damaged(name, f"has the mount {mount.mountpoint} in itself")
        reached.update(chain)


def _mount(entry: MntEntry, namespace: int, name: str) -> MountEntry:
    if not 0 < entry.mnt_id <= MOUNT_ID_MAX:
        raise damaged(name, f"has the number {entry.mnt_id} for a mount")
    fstype = text(entry.fsname, name) if entry.fstype == _AUTO else FILE_SYSTEMS.get(entry.fstype, "")
    return MountEntry(
        namespace=namespace,
        id=entry.mnt_id,
        parent=entry.parent_mnt_id,
        mountpoint=path_text(entry.mountpoint, name, "mountpoint"),
        fstype=fstype,
        source=text(entry.source, name),
        root=path_text(entry.root, name, "mount root"),
        flags=entry.flags,
        sb_flags=entry.sb_flags,
        options=text(entry.options, name, OPTIONS_BYTES_MAX),
        device=entry.root_dev,
        external=_external(entry, name),
        shared_id=entry.shared_id,
        master_id=entry.master_id,
        deleted=entry.deleted,
        by_plugin=entry.with_plugin,
    )


def _external(entry: MntEntry, name: str) -> str | None:
    """``ext_key``; CRIU before 3.16 marked the mount and put the key into ``root`` (mount.c, get_mp_root)."""
    if entry.HasField("ext_key"):
        return text(entry.ext_key, name)
    return text(entry.root, name) if entry.ext_mount else None
