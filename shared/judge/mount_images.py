"""Writes the mount tree that CRIU rebuilds: the live pod's mounts, at the places that the dump has them.

CRIU mounts what an image says, as root and in the node's mount namespace: ``source`` and ``sb_flags`` go to mount(2) as
they are, and a mount is bound from another one with the same ``root_dev``, source and options, a volume too
(criu/mount-v2.c do_new_mount_v2, do_bind_mount_v2; criu/mount.c mounts_sb_equal, before Linux 5.15 the whole of it). So
of the dump nothing is kept but numbers and places. Everything else follows from the live spec as runc does it
(libcontainer/rootfs_linux.go), and from a constant for each kind of mount:

- the root: the container's own, read-only as the pod says;
- what the pod mounts from the node: handed in by the runtime under the destination;
- file systems of the spec: with the spec's flags and options;
- what covers masked and read-only paths of /proc and /sys;
- with CAP_SYS_ADMIN: file systems that the processes mounted, and copies of all these in mount namespaces of theirs.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import Final

from shared.criu.criu_pb2 import MntEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.criu.mounts import FILE_SYSTEMS, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MountEntry
from shared.judge.mount_options import data_of, flags_of, own_options
from shared.judge.mount_tree import CGROUPS, Tree, differs, takes_propagation
from shared.judge.node_side import NodeSide
from shared.judge.paths import MASK, is_mask, where
from shared.judge.rules import Fields, Rules, bounded, default, derived, equal
from shared.judge.writing import ImageFile, Raw, image_file
from shared.spec import RuntimeSpec

MS_NOSYMFOLLOW: Final = 256
QUIET: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC
_CODES: Final = {name: code for code, name in FILE_SYSTEMS.items()}
_UNKNOWN: Final = 0
"""UNSUPPORTED of mnt.proto: CRIU never mounts such a file system by itself."""

FIELDS: Final[Fields] = {
    "MntEntry": {
        "fstype": equal("the kind that the live pod mounts there; what CRIU mounts follows from the pod"),
        "mnt_id": bounded("a number for one mount, in all mount namespaces (mounts.py, read_mounts)"),
        "root_dev": bounded("a number for a file system; only mounts of one kind may share one"),
        "parent_mnt_id": bounded("a mount of the same namespace; all mounts are below one root"),
        "flags": derived("the live pod's, or those of what a volume shows; of a process' own mount its own"),
        "root": equal("the whole of the file system, or the part that a cover of /proc and /sys shows"),
        "mountpoint": bounded(
            "a place where the live pod mounts something, or one below /proc and /sys that is covered"
        ),
        "source": derived("the live spec's, which CRIU passes to mount(2)"),
        "options": derived("the live spec's, or the node's for cgroup2; of a process' own tmpfs its size and mode"),
        "shared_id": derived("a group of its own, and only where the pod asks for such propagation"),
        "master_id": derived("a group of its own, and only where the pod asks for such propagation"),
        "with_plugin": bounded("no mount is left to a plugin (mount_tree.py)"),
        "ext_mount": default("how CRIU before 3.16 marked what is handed in"),
        "ext_key": equal("a destination of the live spec, which the runtime maps to the pod's source"),
        "fsname": default("a file system by its name, which CRIU would mount whatever it is (FSTYPE__AUTO)", b""),
        "internal_sharing": derived("no mount handed in is shared among others of the dump"),
        "deleted": bounded("nothing deleted is mounted: CRIU would delete it again (mount_tree.py)"),
        "sb_flags": derived("read-only or nothing: CRIU passes them to mount(2), MS_BIND and MS_MOVE too"),
    }
}


@dataclass(frozen=True, slots=True)
class _Form:
    """What CRIU mounts, apart from the place."""

    fstype: int
    flags: int
    sb_flags: int = 0
    root: str = "/"
    source: str = "none"
    options: str = ""
    key: str | None = None
    """Under which the runtime hands it in."""
    empty: bool = False
    """A tmpfs that nothing of the dump is unpacked into."""


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """No file: what can be said of the mounts before a pod is known. ``pod_files`` writes them."""
    for namespace in dict.fromkeys(mount.namespace for mount in dump.mounts):
        for entry in images.entries(Kind.MNTS, MntEntry, namespace):
            rules.apply(entry, images.path(Kind.MNTS.file(namespace)))
    return iter(())


def pod_files(
    dump: Dump,
    live: RuntimeSpec,
    *,
    held: Set[int] = frozenset(),
    node: NodeSide,
) -> Iterator[ImageFile]:
    """``mountpoints-<namespace>.img`` of each namespace, and the content of each tmpfs; of a tree that was judged.

    ``held``: ids of mounts on which CRIU is to follow no link. Raises
    Refused("MountTreeDiffers") for a mount that the pod does not have.
    """
    forms = _Forms(dump, live, node)
    contents: dict[int, ImageFile] = {}
    for namespace in dict.fromkeys(mount.namespace for mount in dump.mounts):
        entries = []
        for number, mount in enumerate(dump.mounts):
            if mount.namespace == namespace:
                form = forms.of(mount)
                if mount.id in held:
                    form = replace(form, flags=form.flags | MS_NOSYMFOLLOW)
                entries.append(_entry(mount, form, *forms.sharing(mount, form, number)))
                if form.fstype == _CODES["tmpfs"] and form.root == "/":
                    contents.setdefault(mount.device, _content(mount, form, dump.images))
        yield image_file(Kind.MNTS, entries, namespace)
    yield from contents.values()


class _Forms:
    """What each mount is mounted as."""

    def __init__(self, dump: Dump, live: RuntimeSpec, node: NodeSide) -> None:
        self._live = live
        self._node = node
        self._inherited = dict(node.inherited)
        self._tree = Tree(dump, live)

    def of(self, mount: MountEntry) -> _Form:
        if (original := self._tree.original(mount)) is not None:
            # In a mount namespace of a process: bound from the container's, for it has the same number and options.
            return replace(self.of(original), key=None)
        if mount.namespace != self._tree.dump.root.ids.mnt_ns:
            return self._own(mount)
        path = where(mount.mountpoint)
        if self._tree.is_root(mount):
            flags = MS_RDONLY if self._live.root_readonly else 0
            return _Form(_UNKNOWN, flags, options="/")
        if mount.external is not None:
            return self._handed_in(mount, path)
        if path in self._tree.masked or self._tree.is_cover(mount):
            return _Form(
                _CODES["tmpfs"],
                MS_RDONLY | QUIET,
                MS_RDONLY,
                source="tmpfs",
                options="size=4k,nr_inodes=1",
                empty=True,
            )
        if (shown := self._tree.shown_by(mount)) is not None:
            # /proc/sys, read-only, and a terminal: a part of what is mounted already.
            flags = MS_NOSUID | MS_NOEXEC if mount.fstype == "devpts" else QUIET | MS_RDONLY
            return replace(self.of(shown), flags=flags, root=mount.root)
        if path == CGROUPS and mount.fstype == "tmpfs":
            # The directories and links of cgroup v1's hierarchies, which runc makes there.
            return _Form(_CODES["tmpfs"], QUIET | mount.flags & MS_RDONLY, source="tmpfs", options="mode=755")
        if mount.fstype == "cgroup" and self._tree.own_cgroups and path.startswith(f"{CGROUPS}/"):
            return self._hierarchy(mount)
        in_cgroups = mount.fstype == "cgroup2" and f"{path}/".startswith(f"{CGROUPS}/")
        asked = self._tree.mounts.get(CGROUPS if in_cgroups else path)
        if asked is None or (asked.type != mount.fstype and not in_cgroups) or mount.root != "/":
            return self._own(mount)
        flags = flags_of(asked.options)
        options = self._options(mount.fstype, data_of(mount.fstype, asked.options))
        source = asked.source or mount.fstype
        return _Form(_CODES[mount.fstype], flags, flags & MS_RDONLY, source=source, options=options)

    def _handed_in(self, mount: MountEntry, path: str) -> _Form:
        """Options are the place, so that nothing else is ever bound from it (mount.c, mounts_sb_equal)."""
        if is_mask(mount, self._live):
            return _Form(_UNKNOWN, MS_NOSUID | MS_NOEXEC, options=path, key=MASK)
        if path.startswith(f"{CGROUPS}/"):
            asked = self._tree.mounts.get(CGROUPS)
            flags = flags_of(asked.options) if asked else QUIET | MS_RDONLY
            return _Form(_UNKNOWN, flags, options=path, key=mount.external)
        asked = self._tree.mounts.get(path)
        if asked is None:
            raise differs(mount, "which the pod's container does not have there")
        flags = flags_of(asked.options) or self._inherited.get(asked.destination, 0)
        # CRIU makes deleted files again on no file system that is read-only itself (mount.c, try_remount_writable).
        return _Form(_UNKNOWN, flags, flags & MS_RDONLY, options=path, key=asked.destination)

    def _hierarchy(self, mount: MountEntry) -> _Form:
        """One of cgroup v1 that the node has: with other options CRIU would make a new one for the whole node."""
        asked = self._tree.mounts.get(CGROUPS)
        named = set(mount.options.split(","))
        found = next((each for each in self._node.hierarchies if set(each.split(",")) <= named), None)
        if asked is None or found is None or mount.root != "/":
            raise differs(mount, "a hierarchy of cgroups that this node does not have")
        flags = flags_of(asked.options)
        return _Form(_CODES["cgroup"], flags, flags & MS_RDONLY, source="cgroup", options=found)

    def _own(self, mount: MountEntry) -> _Form:
        """Mounted by a process with CAP_SYS_ADMIN; one of a file system that is there already is bound from it."""
        if not self._tree.may_mount_itself(mount):
            raise differs(mount, "which the pod's container does not have")
        first = self._tree.first_of(mount)
        flags = mount.flags & (MS_RDONLY | QUIET)
        if first is not mount:
            return replace(self.of(first), flags=flags)
        options = self._options(mount.fstype, own_options(mount.fstype, mount.options))
        return _Form(
            _CODES[mount.fstype], flags, flags & mount.sb_flags & MS_RDONLY, source=mount.fstype, options=options
        )

    def _options(self, fstype: str, asked: str) -> str:
        if fstype == "cgroup2":
            return self._node.cgroup2_options
        if fstype in ("tmpfs", "devpts") and self._live.mount_label:
            # As runc labels them (mountPropagate with the container's label; selinux/label, FormatMountLabel).
            return ",".join(filter(None, (asked, f'context="{self._live.mount_label}"')))
        return asked

    def sharing(self, mount: MountEntry, form: _Form, number: int) -> tuple[int, int]:
        """A group of its own to share with, and one to follow, where the pod asks for it; ``number``: of this mount."""
        if mount.namespace != self._tree.dump.root.ids.mnt_ns:
            return 0, 0
        shares, follows = takes_propagation(mount, self._live)
        outside = form.key is not None or self._tree.is_root(mount)  # what is followed is the node's mount
        return (
            2 * number + 1 if mount.shared_id and shares else 0,
            2 * number + 2 if mount.master_id and follows and outside else 0,
        )


def _entry(mount: MountEntry, form: _Form, shared: int, master: int) -> MntEntry:
    entry = MntEntry(
        fstype=form.fstype,
        mnt_id=mount.id,
        root_dev=mount.device,
        parent_mnt_id=mount.parent,
        flags=form.flags,
        root=form.root.encode(),
        mountpoint=mount.mountpoint.encode(),
        source=form.source.encode(),
        options=form.options.encode(),
        shared_id=shared,
        master_id=master,
        sb_flags=form.sb_flags,
    )
    if form.key is not None:
        entry.ext_key = form.key.encode()
    return entry


def _content(mount: MountEntry, form: _Form, images: tuple[str, ...]) -> ImageFile:
    """What a tmpfs held, under the name that CRIU looks for first (filesystems.c, tmpfs_restore)."""
    name = f"tmpfs-dev-{mount.device}.tar.gz.img"
    if form.empty:
        return ImageFile(name, (EMPTY,))
    return ImageFile(name, (Raw(name if name in images else f"tmpfs-{mount.id}.tar.gz.img"),))


def _empty() -> bytes:
    """An archive of nothing but the top directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        top = tarfile.TarInfo("./")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(top)
    return gzip.compress(out.getvalue(), mtime=0)


EMPTY: Final = _empty()
