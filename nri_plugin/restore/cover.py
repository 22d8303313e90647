"""Puts a restored container's mount tree right: paths that the pod masks, and volumes that are read-only below too.

``python cover.py PID FILE``: FILE has entries ``how PATH``, each ended by a zero byte: ``masked`` and ``readonly``
cover a path below /proc or /sys; ``rro`` makes a mount read-only with all that is mounted below it. One that cannot be
made so because something has a file open for writing there is printed, with exit status 1. ``follow``: links on the
mount are followed again, and on all mounts in mount namespaces of other processes below PID. ``opened`` and ``judged``:
where there are such entries, no process may have any other file open, nor one of these that is not the one at its path;
one that is is printed first of all, with exit status 3. A ``judged`` one must be one that some ``user UID GID
CAPABILITIES GROUP…`` may open as it is open; one that is not is printed, with exit status 4. Run by restore-runc while
the processes are stopped; stands alone: restore-runc knows no package. Nothing of the container is run or trusted: what
covers is made outside, paths are walked without following links.

Sources: runtime-spec config-linux.md (Masked Paths, Readonly Paths), runc libcontainer/rootfs_linux.go (maskPaths,
readonlyPath), open_tree(2), move_mount(2), fsopen(2), mount_setattr(2), openat2(2), faccessat2(2); numbers: the same on
every machine. Who may open a file: path_resolution(7), setfsuid(2), capset(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT = 428, 429, 430, 431, 432
OPENAT2, FACCESSAT2, MOUNT_SETATTR = 437, 439, 442
CLONE, CLOEXEC, EMPTY_PATH, RECURSIVE = 1, os.O_CLOEXEC, 0x1000, 0x8000
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 2, 4
FROM_EMPTY, TO_EMPTY = 4, 0x40
SET_STRING, CREATE = 1, 6
READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS = 1, 2, 4, 8
NO_FOLLOW = 0x200000
"""MOUNT_ATTR_NOSYMFOLLOW."""
HERE = -100
"""AT_FDCWD."""
AS_EFFECTIVE = 0x200
"""AT_EACCESS."""
CAPABILITIES_VERSION = 0x20080522
AIO_RING_MAGIC, PROC_MAGIC = 0xA10A10A1, 0x9FA0
STATFS_BYTES = 256
"""More than struct statfs has (statfs(2)), which begins with the kind of file system."""
NO_ID = 0xFFFFFFFF
"""Of no user or group: setfsuid(2) changes nothing then, and says what there is."""

User = Sequence[int]
"""UID, GID, a mask of capabilities, and groups."""

_libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: object) -> int:
    """A system call; raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def opened(path: str) -> int:
    """A descriptor of ``path`` in the container; raises OSError, also where a link is on the way."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    return call(OPENAT2, HERE, os.fsencode(path), how, ctypes.c_size_t(len(how)))


def nothing() -> int:
    """A mount of an empty, read-only directory."""
    context = call(FSOPEN, b"tmpfs", 1)
    call(FSCONFIG, context, SET_STRING, b"size", b"4k", 0)
    call(FSCONFIG, context, CREATE, None, None, 0)
    return call(FSMOUNT, context, 1, READ_ONLY | NO_SUID | NO_DEVICES | NO_PROGRAMS)


def put(mount: int, target: int) -> None:
    call(MOVE_MOUNT, mount, b"", target, b"", FROM_EMPTY | TO_EMPTY)


def read_only(target: int) -> int:
    """A read-only mount of what is at ``target``."""
    mount = call(OPEN_TREE, target, b"", EMPTY_PATH | CLONE | CLOEXEC)
    set_attributes(mount, on=READ_ONLY | NO_SUID | NO_DEVICES | NO_PROGRAMS)
    return mount


def set_attributes(mount: int, *, on: int = 0, off: int = 0, flags: int = 0) -> None:
    """Raises OSError: EBUSY for a file open for writing, EINVAL for what is no mount's root."""
    attributes = struct.pack("=QQQQ", on, off, 0, 0)
    call(MOUNT_SETATTR, mount, b"", EMPTY_PATH | flags, attributes, ctypes.c_size_t(len(attributes)))


def read_only_below(path: str) -> None:
    """Makes a mount read-only with all below it; exits with 1, printing the path, where a file is open for writing."""
    try:
        set_attributes(opened(path), on=READ_ONLY, flags=RECURSIVE)
    except OSError as error:
        if error.errno == errno.EBUSY:
            print(path)
            sys.exit(1)
        raise


def tree(pid: int) -> Iterator[int]:
    """The process and all below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from tree(int(child))


def open_files(pid: int) -> Iterator[tuple[str, str]]:
    """Link below /proc, and the path it shows, of all that the processes have open, mapped, or work in.

    Not of deleted files, which no path leads to; but a name may end as the kernel shows those (linux fs/d_path.c).
    """
    for process in tree(pid):
        folder = Path("/proc", str(process))
        if (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            continue
        links = (folder / "cwd", folder / "root", folder / "exe")
        for link in (*links, *(folder / "fd").iterdir(), *(folder / "map_files").iterdir()):
            shown = str(link.readlink())
            if shown.startswith("/") and not (shown.endswith(" (deleted)") and (not link.stat().st_nlink or aio(link))):
                yield str(link)[len("/proc/") :], shown


def aio(link: Path) -> bool:
    """Whether the link is to a ring of aio(7), a file that no path leads to (linux fs/aio.c, aio_private_file)."""
    descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        return file_system(descriptor) == AIO_RING_MAGIC
    finally:
        os.close(descriptor)


def of_ended_process(link: str, proc: int) -> bool:
    """Whether the link below ``proc`` is to a file of the container's own /proc, whose process has ended: CRIU makes
    such a process for a moment. The file is not shown as deleted (linux fs/proc/base.c, proc_flush_pid)."""
    descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC, dir_fd=proc)
    try:
        return file_system(descriptor) == PROC_MAGIC and os.fstat(descriptor).st_dev == os.lstat("/proc").st_dev
    finally:
        os.close(descriptor)


def file_system(descriptor: int) -> int | None:
    """The kind of file system (linux/magic.h) that a file is on."""
    found = ctypes.create_string_buffer(STATFS_BYTES)
    failed = _libc.fstatfs(descriptor, found)
    return None if failed else int(struct.unpack_from("=l", found.raw)[0] & 0xFFFFFFFF)


def elsewhere(links: Iterable[tuple[str, str]], expected: Set[str], proc: int) -> str | None:
    """The first path that is none of those, or shows another file than the link below ``proc`` does."""
    there: dict[str, tuple[int, int]] = {}
    for link, shown in links:
        if os.fsencode(shown).decode(errors="backslashreplace") not in expected:
            return shown
        if shown not in there:
            try:
                descriptor = opened(shown)
            except FileNotFoundError:
                if of_ended_process(link, proc):
                    continue
                return shown
            except OSError:
                return shown
            there[shown] = identity(os.fstat(descriptor))
            os.close(descriptor)
        if identity(os.stat(link, dir_fd=proc)) != there[shown]:
            return shown
    return None


def forbidden(links: Iterable[tuple[str, str]], judged: Set[str], users: Iterable[User], proc: int) -> str | None:
    """The first of the judged files that no user may open as it is open, and how that is."""
    left = {
        (shown, asked(link, proc), identity(os.stat(link, dir_fd=proc)))
        for link, shown in links
        if os.fsencode(shown).decode(errors="backslashreplace") in judged
    }
    for user in users:
        if left:
            with acting_as(user):
                left = {each for each in left if not may_open(*each)}
    for shown, mode, _ in sorted(left):
        return f"{shown} open for {'writing' if mode & os.W_OK else 'reading' if mode & os.R_OK else 'its use'}"
    return None


def asked(link: str, proc: int) -> int:
    """What opening the file took: its link's own permissions say (linux fs/proc/fd.c, tid_fd_update_inode)."""
    if link.rpartition("/")[2] in ("cwd", "root", "exe"):
        return os.X_OK
    mode = os.stat(link, dir_fd=proc, follow_symlinks=False).st_mode
    return (os.R_OK if mode & stat.S_IRUSR else 0) | (os.W_OK if mode & stat.S_IWUSR else 0)


def may_open(path: str, mode: int, expected: tuple[int, int]) -> bool:
    """As the kernel judges it of this process: on the way, and of the file itself."""
    try:
        descriptor = opened(path)
        try:
            call(FACCESSAT2, descriptor, b"", mode, EMPTY_PATH | AS_EFFECTIVE)
            return identity(os.fstat(descriptor)) == expected
        finally:
            os.close(descriptor)
    except PermissionError:
        return False


@contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Files are opened as ``user``: no other rights of this process change, so nobody else can get at it."""
    uid, gid, capabilities, *groups = user
    before, all_of_root = os.getgroups(), effective()
    os.setgroups(groups)
    set_file_user(uid, gid)
    set_effective(capabilities)
    try:
        yield
    finally:
        set_effective(all_of_root)
        set_file_user(0, 0)
        os.setgroups(before)


def set_file_user(uid: int, gid: int) -> None:
    """Raises OSError; the calls themselves do not tell."""
    for change, number in ((_libc.setfsgid, gid), (_libc.setfsuid, uid)):
        change(ctypes.c_uint(number))
        if ctypes.c_uint(change(ctypes.c_uint(NO_ID))).value != number:
            raise OSError(errno.EPERM, f"no file can be opened as {number}")


def _capability_sets() -> tuple[bytes, list[int]]:
    header, sets = struct.pack("=Ii", CAPABILITIES_VERSION, 0), ctypes.create_string_buffer(24)
    if _libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return header, list(struct.unpack("=6I", sets.raw))


def effective() -> int:
    """The process' own effective capabilities, as a mask."""
    _, (low, _, _, high, _, _) = _capability_sets()
    return low | high << 32


def set_effective(capabilities: int) -> None:
    header, sets = _capability_sets()
    sets[0], sets[3] = capabilities & 0xFFFFFFFF, capabilities >> 32
    if _libc.capset(header, struct.pack("=6I", *sets)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def mount_namespaces(pid: int) -> list[int]:
    """Descriptors of the mount namespaces of the process, first, and of all below it."""
    found: dict[int, int] = {}
    for process in tree(pid):
        try:
            namespace = os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it has ended
        if found.setdefault(os.fstat(namespace).st_ino, namespace) != namespace:
            os.close(namespace)
    return list(found.values())


def enter(namespace: int) -> None:
    if _libc.setns(namespace, 0x00020000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(pid: int, file: str) -> None:
    wanted = [entry.split(" ", 1) for entry in Path(file).read_bytes().decode().split("\0")[:-1]]
    judged = {path for how, path in wanted if how == "judged"}
    expected = judged | {path for how, path in wanted if how == "opened"}
    users = [[int(number) for number in numbers.split()] for how, numbers in wanted if how == "user"]
    links = list(open_files(pid)) if expected else []
    proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    files = [call(OPEN_TREE, HERE, b"/dev/null", CLONE | CLOEXEC) for how, _ in wanted if how == "masked"]
    folders = [nothing() for how, _ in wanted if how == "masked"]
    own, *others = mount_namespaces(pid)
    if any(how == "follow" for how, _ in wanted):
        for namespace in others:
            enter(namespace)
            set_attributes(opened("/"), off=NO_FOLLOW, flags=RECURSIVE)
    enter(own)
    if found := elsewhere(links, expected, proc):
        print(found)
        sys.exit(3)
    if found := forbidden(links, judged, users, proc):
        print(found)
        sys.exit(4)
    for how, path in wanted:
        if how in ("opened", "judged", "user"):
            continue
        if how == "rro":
            read_only_below(path)
            continue
        if how == "follow":
            set_attributes(opened(path), off=NO_FOLLOW)
            continue
        try:
            target = opened(path)
        except FileNotFoundError:
            continue  # this kernel does not have it
        if how == "readonly":
            put(read_only(target), target)
        else:
            put((folders if stat.S_ISDIR(os.fstat(target).st_mode) else files).pop(), target)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
