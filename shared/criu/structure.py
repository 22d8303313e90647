"""Checks that no image of a dump got lost: CRIU takes many a missing one for an empty one.

Sources: criu/image.c (open_image), criu/filesystems.c (tmpfs_restore), criu/ipc_ns.c, criu/net.c (read_net_ns_img).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from shared.criu.images import IMAGE_BYTES_MAX, ImageDirectory, Kind, header, split, wrong_magic
from shared.criu.inventory import Inventory, read_inventory
from shared.criu.magic import MAGIC
from shared.criu.mounts import MountEntry
from shared.criu.open_files import read_descriptors, read_files
from shared.criu.tasks import Task
from shared.errors import CheckpointInvalid

DESCRIPTORS: Final = "descriptors.json"
_NUMBER: Final = re.compile(r"(?<=-)[0-9a-f]+(?=\.img$)")
_HALF_WAY: Final = {kind.value: kind for kind in (Kind.CGROUP, Kind.IPC_VAR, Kind.NETNS, Kind.TIMENS, Kind.UTSNS)}
"""Images that CRIU reads when the processes are half made."""
_LEGACY: Final = ("creds-", "rlimit-", "vmas-", "sigacts-", "itimers-", "posix-timers-")
"""Images of CRIU before 2.0 (criu/image-desc.c); CRIU still reads them where the current image leaves something out."""


def check_structure(images: ImageDirectory, tasks: Sequence[Task], mounts: Sequence[MountEntry]) -> None:
    """Raises CheckpointInvalid for an image that is missing though others say that it was there, or is of another kind.

    ``tasks`` and ``mounts`` are those of the dump. Reasons: FileMissing, WrongMagic, ImagesTooOld. What the messages
    say of each other is for shared/judge.
    """
    names = images.names()
    _check_magic(images, names)
    alive = [task for task in tasks if task.alive]
    opened = {(file.kind, file.id) for file in read_files(images)}
    held = read_descriptors(images, dict.fromkeys(task.ids.files for task in alive))
    _check_tables(images, alive, opened - {(each.kind, each.file) for each in held})
    _check_framing(images, names)
    _check_namespaces(images, read_inventory(images), alive, mounts)


def _check_magic(images: ImageDirectory, names: Sequence[str]) -> None:
    for name in names:
        if name.startswith(_LEGACY):
            raise CheckpointInvalid("ImagesTooOld", f"{images.path(name)} is an image of CRIU before 2.0")
        pattern = name if name in MAGIC else _NUMBER.sub("%", name)
        if pattern in MAGIC and not images.has_read(name):
            start = header(pattern)
            with images.files.open(images.path(name)) as image:
                if image.read(len(start)) != start:
                    raise wrong_magic(images.path(name), pattern)


def _check_tables(images: ImageDirectory, tasks: Sequence[Task], unused: set[tuple[str, int]]) -> None:
    """CRIU takes a missing table for an empty one. A pipe or socket that nobody has open gives it away."""
    missing = [Kind.FDINFO.file(task.ids.files) for task in tasks if Kind.FDINFO.file(task.ids.files) not in images]
    if missing and any(kind != "reg" for kind, _ in unused):
        raise CheckpointInvalid(
            "FileMissing", f"the dump has no {images.path(missing[0])}, and files in files.img that nobody has open"
        )


def _check_framing(images: ImageDirectory, names: Sequence[str]) -> None:
    """The messages of images that are not read here otherwise are whole."""
    for name in names:
        if kind := _HALF_WAY.get(_NUMBER.sub("%", name)):
            path = images.path(name)
            for _ in split(images.files.read(path, IMAGE_BYTES_MAX), kind, path):
                pass


def _check_namespaces(
    images: ImageDirectory, inventory: Inventory, tasks: Sequence[Task], mounts: Sequence[MountEntry]
) -> None:
    """Images that CRIU opens only when it is half-way: it takes a missing one for an empty one (criu/image.c)."""
    needed = {Kind.CGROUP.file()} if any(task.cgroup_set for task in tasks) else set()
    for ids in (task.ids for task in tasks):
        if ids.ipc_ns != inventory.ids.ipc_ns:
            needed.add(Kind.IPC_VAR.file(ids.ipc_ns))
        if ids.uts_ns != inventory.ids.uts_ns:
            needed.add(Kind.UTSNS.file(ids.uts_ns))
        if ids.net_ns != inventory.ids.net_ns:
            needed.add(Kind.NETNS.file(ids.net_ns))
    if missing := sorted(name for name in needed if name not in images):
        raise CheckpointInvalid("FileMissing", f"the dump has no {', no '.join(map(images.path, missing))}")
    volumes = {mount.device for mount in mounts if mount.external is not None and mount.root == "/"}
    for mount in mounts:
        names = (f"tmpfs-dev-{mount.device}.tar.gz.img", f"tmpfs-{mount.id}.tar.gz.img")
        # A process' own mount namespace has copies of the volumes, which are not marked as such.
        whole = mount.fstype == "tmpfs" and mount.root == "/" and mount.device not in volumes
        if whole and not any(name in images for name in names):
            raise CheckpointInvalid(
                "FileMissing", f"the dump has no {images.path(names[0])}, what the tmpfs {mount.mountpoint} held"
            )
