"""Checks that a dump is whole before CRIU sees it: criu 4.1 spins for ever on a short pages file or a cyclic filter.

Sources: criu/pagemap.c (init_pagemaps, open_pages_image_at), criu/seccomp.c (seccomp_prepare_threads), criu/mem.c
(prepare_mm_pid), criu/filesystems.c (tmpfs_restore), criu/ipc_ns.c, criu/net.c (read_net_ns_img), runc
libcontainer/criu_linux.go (descriptors.json), images/{mm,pagemap,seccomp}.proto.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from shared.archive import CheckpointFiles
from shared.criu.criu_pb2 import MmEntry
from shared.criu.decode import damaged
from shared.criu.images import IMAGE_BYTES_MAX, ImageDirectory, Kind, header, split, wrong_magic
from shared.criu.inventory import Inventory, read_inventory
from shared.criu.magic import MAGIC
from shared.criu.mounts import MountEntry, read_mounts
from shared.criu.open_files import read_descriptors, read_files
from shared.criu.pagemaps import check_pages, page_sizes, read_pagemap
from shared.criu.seccomp_filters import read_filters
from shared.criu.tasks import Task, read_tasks
from shared.errors import CheckpointInvalid
from shared.json_object import JsonObject, parse_json

DESCRIPTORS: Final = "descriptors.json"
_NUMBER: Final = re.compile(r"(?<=-)[0-9a-f]+(?=\.img$)")
_HALF_WAY: Final = {kind.value: kind for kind in (Kind.CGROUP, Kind.IPC_VAR, Kind.NETNS, Kind.TIMENS, Kind.UTSNS)}
"""Images that CRIU reads when the processes are half made."""
_LEGACY: Final = ("creds-", "rlimit-", "vmas-", "sigacts-", "itimers-", "posix-timers-")
"""Images of CRIU before 2.0 (criu/image-desc.c); CRIU still reads them where the current image leaves something out."""


def check_structure(files: CheckpointFiles, *, directory: str = "checkpoint") -> None:
    """Raises CheckpointInvalid when an image is missing, damaged or inconsistent with another one.

    Reasons: FileMissing, WrongMagic, ImageDamaged, ImagePath, ImagesTooOld, PagesSizeMismatch, ParentMissing,
    DescriptorsInvalid. Reads every pagemap, no pages.
    """
    images = ImageDirectory(files, directory)
    names = images.names()
    _check_magic(images, names)
    inventory = read_inventory(images)
    tasks = read_tasks(images)
    alive = [task for task in tasks if task.alive]
    opened = {(file.kind, file.id) for file in read_files(images)}
    mounts = read_mounts(images, tuple(dict.fromkeys(task.ids.mnt_ns for task in alive)))
    descriptors = read_descriptors(images, dict.fromkeys(task.ids.files for task in alive))
    for descriptor in descriptors:
        if (descriptor.kind, descriptor.file) not in opened:
            name = images.path(Kind.FDINFO.file(descriptor.table))
            raise damaged(name, f"has descriptor {descriptor.number} of a file that files.img does not have")
    _check_tables(images, alive, opened - {(each.kind, each.file) for each in descriptors})
    read_filters(images, alive)
    _check_framing(images, names)
    _check_namespaces(images, inventory, alive, mounts)
    _check_memory(images, names, alive, opened)
    _check_descriptors(images)


def _check_magic(images: ImageDirectory, names: Sequence[str]) -> None:
    for name in names:
        if name.startswith(_LEGACY):
            raise CheckpointInvalid("ImagesTooOld", f"{images.path(name)} is an image of CRIU before 2.0")
        pattern = name if name in MAGIC else _NUMBER.sub("%", name)
        if pattern in MAGIC:
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
    for mount in mounts:
        names = (f"tmpfs-dev-{mount.device}.tar.gz.img", f"tmpfs-{mount.id}.tar.gz.img")
        whole = mount.fstype == "tmpfs" and mount.root == "/" and mount.external is None
        if whole and not any(name in images for name in names):
            raise CheckpointInvalid(
                "FileMissing", f"the dump has no {images.path(names[0])}, what the tmpfs {mount.mountpoint} held"
            )


def _check_memory(
    images: ImageDirectory, names: Sequence[str], tasks: Sequence[Task], opened: set[tuple[str, int]]
) -> None:
    pages_users: dict[int, str] = {}
    page_bytes = page_sizes(tasks[0].machine)
    for task in tasks:
        mm = images.one(Kind.MM, MmEntry, task.pid)
        if ("reg", mm.exe_file_id) not in opened:
            raise damaged(images.path(Kind.MM.file(task.pid)), "names an executable that files.img does not have")
        for what, number in (("working directory", task.cwd_file), ("root directory", task.root_file)):
            if ("reg", number) not in opened:
                raise damaged(images.path(Kind.FS.file(task.pid)), f"names a {what} that files.img does not have")
        check_pages(images, read_pagemap(images, Kind.PAGEMAP, task.pid, page_bytes[0]), page_bytes, pages_users)
    prefix = Kind.SHMEM_PAGEMAP.value.partition("%")[0]
    for name in names:
        if name.startswith(prefix) and name.endswith(".img"):
            shared = read_pagemap(images, Kind.SHMEM_PAGEMAP, name[len(prefix) : -len(".img")], page_bytes[0])
            check_pages(images, shared, page_bytes, pages_users)


def _check_descriptors(images: ImageDirectory) -> None:
    """runc takes the first three entries for stdin, stdout and stderr without counting them."""
    name = images.path(DESCRIPTORS)
    document = parse_json(images.files.read(name, 1 << 20), name)
    if len(JsonObject({"descriptors": document}, name).texts("descriptors")) < 3:
        raise CheckpointInvalid("DescriptorsInvalid", f"{name} does not list stdin, stdout and stderr")
