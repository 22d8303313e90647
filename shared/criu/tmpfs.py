"""Device nodes that CRIU would unpack from a dump's tmpfs images, as root.

Sources: criu/filesystems.c (tmpfs_dump: GNU tar, gzip, sparse), criu/image-desc.c (names: by file system, by mount).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.archive import CheckpointFiles
from shared.compression import Compression, Decompressed
from shared.criu.images import ImageDirectory
from shared.criu.mounts import MountEntry
from shared.tar import EVERY, MemberWalk

TMPFS_BYTES_MAX: Final = 4 << 30
_NAME: Final = re.compile(r"tmpfs-(dev-)?([0-9]{1,10})\.tar\.gz\.img")


@dataclass(frozen=True, slots=True)
class DeviceNode:
    path: str
    """In the container; starts with ``?`` when no mount of the dump belongs to the image."""
    kind: Literal["character device", "block device"]
    major: int
    minor: int
    mode: int
    """Permission bits."""


def read_device_nodes(
    files: CheckpointFiles, mounts: Sequence[MountEntry], *, directory: str = "checkpoint"
) -> tuple[DeviceNode, ...]:
    """Every device node of every tmpfs image; the images are decompressed once, nothing is kept.

    Raises CheckpointInvalid: ImageDamaged, and what walking a tar archive raises.
    """
    images = ImageDirectory(files, directory)
    nodes: list[DeviceNode] = []
    for name in images.names():
        if found := _NAME.fullmatch(name):
            where = _mountpoint(mounts, by_device=bool(found[1]), number=int(found[2]))
            nodes += _nodes(images, name, where)
    return tuple(nodes)


def _mountpoint(mounts: Sequence[MountEntry], *, by_device: bool, number: int) -> str:
    for mount in mounts:
        if (mount.device if by_device else mount.id) == number and mount.root == "/":
            return mount.mountpoint.rstrip("/")
    return "?"


def _nodes(images: ImageDirectory, name: str, mountpoint: str) -> Iterator[DeviceNode]:
    path = images.path(name)
    source = images.files.open(path)
    with Decompressed(source, Compression.GZIP, path, limit_bytes=TMPFS_BYTES_MAX) as stream:
        for member in MemberWalk(stream, path, EVERY).members():
            if member.kind in ("character device", "block device"):
                yield DeviceNode(f"{mountpoint}/{member.name}", member.kind, *member.device, member.mode)
