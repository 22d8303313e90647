"""Files of memory (memfd_create(2)): criu/memfd.c makes one for each inode and opens it anew for each file of it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import MemfdInodeEntry
from shared.criu.decode import damaged
from shared.criu.images import ImageDirectory, Kind
from shared.judge.open_flags import flags_rule, id_rule, owner_rule
from shared.judge.regular_files import MEMORY, of_kind
from shared.judge.rules import Fields, Rules, bounded, free
from shared.judge.writing import ImageFile, image_file

_NAME_BYTES_MAX: Final = 249
"""memfd_create(2)."""
_SEALS: Final = 0x3F
"""F_SEAL_SEAL to F_SEAL_EXEC (linux/fcntl.h)."""
_HUGE: Final = 4
"""MFD_HUGETLB; the size of a page stands in six bits from bit 26 (linux/memfd.h)."""
_HUGE_SIZES: Final = 0x3F << 26
_SIZE_MAX: Final = 1 << 46
_MODES: Final = range(stat.S_IFREG, stat.S_IFREG + 0o1000)
"""Of a regular file that is no setuid program."""

FIELDS: Final[Fields] = {
    "MemfdFileEntry": {
        "id": id_rule(),
        "flags": flags_rule("how the file is opened"),
        "pos": free("the process may move there itself"),
        "fown": owner_rule(),
        "inode_id": bounded("an inode of memfd.img"),
    },
    "MemfdInodeEntry": {
        "name": bounded("/proc shows it, nothing is looked up by it", lambda name: _is_name(name)),
        "uid": free("only processes of the container can reach it, and the kernel runs no setuid program there"),
        "gid": free("only processes of the container can reach it, and the kernel runs no setuid program there"),
        "size": bounded("memory is taken where it is written", lambda size: size <= _SIZE_MAX),
        "shmid": bounded("the number of the image with its pages"),
        "seals": bounded("of fcntl(2) F_ADD_SEALS", lambda seals: not seals & ~_SEALS),
        "inode_id": bounded("its own number, once in memfd.img"),
        "hugetlb_flag": bounded("MFD_HUGETLB and a size of pages", lambda flag: not flag & ~(_HUGE | _HUGE_SIZES)),
        "mode": bounded("permissions of a regular file", lambda mode: mode in _MODES),
    },
}


def _is_name(name: bytes) -> bool:
    return len(name) <= _NAME_BYTES_MAX and b"\0" not in name


def check_memory_files(images: ImageDirectory) -> None:
    """Raises CheckpointInvalid("ImageDamaged") for a file without inode, an inode twice or without its pages."""
    wanted = _wanted(images)
    if not wanted:
        return
    found: set[int] = set()
    for inode in _inodes(images):
        name = images.path(Kind.MEMFD.file())
        if inode.inode_id in found:
            raise damaged(name, f"has the inode {inode.inode_id} twice")
        found.add(inode.inode_id)
        pages = Kind.SHMEM_PAGEMAP.file(inode.shmid)
        if inode.inode_id in wanted and inode.size and pages not in images:
            raise damaged(name, f"has the inode {inode.inode_id}, for whose content there is no {pages}")
    if lost := wanted - found:
        raise damaged(images.path(Kind.FILES.file()), f"has a file of memory of the missing inode {min(lost)}")


def memory_file_images(images: ImageDirectory, rules: Rules) -> Iterator[ImageFile]:
    """memfd.img with the inodes that some file is of. Raises Refused("FieldExceeds")."""
    name = Kind.MEMFD.file()
    if not (wanted := _wanted(images)):
        return
    written = []
    for inode in _inodes(images):
        if inode.inode_id in wanted:
            made = MemfdInodeEntry()
            made.CopyFrom(inode)
            rules.apply(made, name)
            written.append(made)
    yield image_file(Kind.MEMFD, written)


def _wanted(images: ImageDirectory) -> set[int]:
    return {entry.memfd.inode_id for entry in of_kind(images, MEMORY)}


def _inodes(images: ImageDirectory) -> list[MemfdInodeEntry]:
    return images.entries(Kind.MEMFD, MemfdInodeEntry) if Kind.MEMFD.file() in images else []
