"""Mounting and unmounting through libc, without a child process; and deleting trees that may hold mounts.

Source: mount(2), umount2(2), overlayfs.rst (option string limited to one page).
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shared.errors import Unavailable
from shared.judge.paths import is_bind
from shared.spec import RuntimeSpec

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
OPTIONS_LIMIT_BYTES = 4095
"""One page less the final zero (fs/namespace.c copy_mount_options)."""

INERT = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
"""How foreign content is mounted: read, never run."""

_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")
"""A byte that would end a field of mountinfo (fs/proc_namespace.c mangle)."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, fstype: str | None, flags: int, options: str | None = None) -> None:
    """mount(2); raises Unavailable("MountFailed") with the kernel's reason."""
    done = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    if done:
        reason = os.strerror(ctypes.get_errno())
        raise Unavailable("MountFailed", f"{source} cannot be mounted at {target}: {reason}")


def bind(source: Path, target: Path, flags: int = INERT) -> None:
    """Binds ``source`` (file or directory) over ``target`` with ``flags``, or not at all."""
    mount(str(source), target, None, MS_BIND)
    try:
        mount("none", target, None, MS_REMOUNT | MS_BIND | flags)
    except Unavailable:
        unmount(target)
        raise


def unmount(target: Path) -> bool:
    """Unmounts everything stacked at ``target``, lazily; False when nothing was mounted there."""
    found = False
    while not _libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW):
        found = True
    return found


def mount_points() -> frozenset[str]:
    """Every mount point of this mount namespace."""
    lines = Path("/proc/self/mountinfo").read_bytes().removesuffix(b"\n").split(b"\n")
    points = (_ESCAPED.sub(lambda found: bytes((int(found[1], 8),)), line.split(b" ")[4]) for line in lines)
    return frozenset(map(os.fsdecode, points))


def mounts_below(directory: Path) -> Sequence[Path]:
    """Mount points at or below ``directory``, deepest first."""
    found = [Path(each) for each in mount_points() if each == str(directory) or each.startswith(f"{directory}/")]
    return sorted(found, key=lambda path: (-len(path.parts), path))


def inherited_flags(live: RuntimeSpec) -> tuple[tuple[str, int], ...]:
    """ro, nosuid, nodev and noexec of what each volume shows, by its destination (statvfs(3), as MS_…)."""
    found = []
    for mount in live.mounts:
        if is_bind(mount.type, mount.options):
            with suppress(OSError):
                found.append((mount.destination, os.statvfs(mount.source).f_flag & INERT))
    return tuple(found)


def delete_tree(directory: Path) -> None:
    """Unmounts everything below ``directory``, then deletes it; never walks into a mount.

    Raises Unavailable("StillMounted") when something cannot be unmounted: then nothing is deleted.
    """
    for point in mounts_below(directory):
        unmount(point)
    if left := mounts_below(directory):
        raise Unavailable("StillMounted", f"{left[0]} cannot be unmounted, so {directory} is left as it is")
    shutil.rmtree(directory, ignore_errors=False, onerror=_ignore_missing)


def empty(directory: Path) -> None:
    """Deletes everything in ``directory``, which has no mounts below it."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _ignore_missing(function: object, path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
