"""What CRIU would unpack as root from a dump's images of tmpfs mounts: device nodes and programs that raise rights.

Sources: criu/filesystems.c (tmpfs_dump: GNU tar, gzip, sparse), criu/image-desc.c (names: by file system, by mount).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from shared.archive import CheckpointFiles
from shared.compression import Compression, Decompressed
from shared.criu.images import ImageDirectory
from shared.criu.mounts import MountEntry
from shared.special_files import SpecialFile, special_files

TMPFS_BYTES_MAX: Final = 4 << 30
TAR_BYTES_MORE: Final = 16 << 20
"""Headers and padding, beyond what the files hold."""
_NAME: Final = re.compile(r"tmpfs-(dev-)?([0-9]{1,10})\.tar\.gz\.img")
_SIZE: Final = re.compile(r"(?:^|,)size=([0-9]{1,15})([kmg]?)(?=,|$)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def read_tmpfs(
    files: CheckpointFiles, mounts: Sequence[MountEntry], *, directory: str = "checkpoint"
) -> tuple[SpecialFile, ...]:
    """Every special file of every tmpfs image; the images are decompressed once, nothing is kept.

    Raises CheckpointInvalid: ImageDamaged, ArchiveTooLarge when a tmpfs of that size could not have held the files,
    TmpfsLink, and what walking a tar archive raises.
    """
    images = ImageDirectory(files, directory)
    found: list[SpecialFile] = []
    for name in images.names():
        if match := _NAME.fullmatch(name):
            mount = _mount(mounts, by_device=bool(match[1]), number=int(match[2]))
            found += _special(images, name, mount)
    return tuple(found)


def _mount(mounts: Sequence[MountEntry], *, by_device: bool, number: int) -> MountEntry | None:
    for mount in mounts:
        if (mount.device if by_device else mount.id) == number and mount.root == "/":
            return mount
    return None


def _special(images: ImageDirectory, name: str, mount: MountEntry | None) -> Iterator[SpecialFile]:
    path = images.path(name)
    limit = _limit(mount)
    source = images.files.open(path)
    with Decompressed(source, Compression.GZIP, path, limit_bytes=limit + TAR_BYTES_MORE) as stream:
        top = mount.mountpoint.rstrip("/") if mount else "?"
        yield from special_files(stream, path, top, limit_bytes=TMPFS_BYTES_MAX, too_large="ArchiveTooLarge")


def _limit(mount: MountEntry | None) -> int:
    if mount and (size := _SIZE.search(mount.options)):
        return min(int(size[1]) * _UNITS[size[2]], TMPFS_BYTES_MAX)
    return TMPFS_BYTES_MAX
