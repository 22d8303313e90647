"""Makes the root directory that CRIU is started in, in a mount namespace of this process's own, and holds that.

``python own_root.py PARENT PLAN``: told by a line on PLAN/ns/go, ``FOLDER BELOW ROOTFS`` with tabs between them, it
mounts what PLAN/criu-mounts lists: entries ``OPTIONS``, ``SOURCE``, ``TARGET``, each ended by a zero byte. Each is a
bind mount of SOURCE at TARGET in PLAN/criu-root, with its mounts below (``all``), read-only (``ro``), left out where
there is no SOURCE (``any``), all in it hidden that no other entry names (``shared``); ``kept`` is seen in such a mount
and mounts nothing. ROOTFS comes to FOLDER/BELOW, where the runtime has it mounted for CRIU. Directories of PATH that
are outside the system's are added, as is what lies beside criu there.

Before that it gives PARENT, a shell with one thread, a session keyring of its own as the runtime's init would give a
container one: what PARENT starts from then on has it, the runtime, CRIU and the restored processes. A line on
PLAN/ns/keyring says that this is done.

PLAN/ns/ready says that all is done, PLAN/ns/failed that it cannot be; the process then stays until it is killed or
PARENT ends. A mount on the namespace's file could hold it too, but since Linux 6.18 namespaces are not numbered in
order, and the kernel takes some such mounts for loops (fs/namespace.c, mnt_ns_loop). Run by restore-runc, beside all
that comes before the restore, to which it adds next to nothing; stands alone, as cover.py does, and imports little.

Sources: mount(2), unshare(2), pivot_root(2) (the paragraph on "."), prctl(2), session-keyring(7), keyctl(2)
(KEYCTL_SESSION_TO_PARENT), runc libcontainer/keys and standard_init_linux.go.
"""

# pathlib takes longer to import than all of this runs.
# ruff: noqa: PTH103, PTH110, PTH112, PTH120, PTH123

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE, MNT_DETACH = 1, 32, 4096, 16384, 1 << 19, 2
CLONE_NEWNS, PR_SET_PDEATHSIG, SIGKILL = 0x00020000, 1, 9
KEPT_FLAGS = 2 | 4 | 8
"""MS_NOSUID, MS_NODEV, MS_NOEXEC, which statvfs(3) calls by the same numbers."""
SYSTEM = ("bin", "sbin", "usr", "nix", "gnu")
"""Directories that criu_root.py lists anyway, beside those that begin with "lib"."""

KEYCTL = {"x86_64": 250, "ppc64": 271, "ppc64le": 271, "s390x": 280}
"""Number of keyctl(2) by machine; all others have that of asm-generic/unistd.h."""
KEYCTL_GENERIC = 219
JOIN_SESSION_KEYRING, SETPERM, SESSION_TO_PARENT = 1, 5, 18
PERMISSIONS = 0x3F1B0000
"""What runc's init leaves: everything for who holds it; the user may view, read, search and link it."""
ENOSYS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raises OSError, saying what could not be done and why."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | None, target: str, flags: int, what: str) -> None:
    path = None if source is None else os.fsencode(source)
    check(_libc.mount(path, os.fsencode(target), None, ctypes.c_ulong(flags), None), what)


def bind(options: str, source: str, target: str) -> None:
    mount(source, target, MS_BIND | (MS_REC if "all" in options else 0), f"{source} cannot be mounted at {target}")
    if "ro" in options:
        flags = MS_REMOUNT | MS_BIND | MS_RDONLY | os.statvfs(target).f_flag & KEPT_FLAGS
        mount(None, target, flags, f"{target} cannot be made read-only")


def session_keyring() -> None:
    """Gives the parent a new session keyring, as soon as it next runs; raises OSError. Kernels may have no keyrings."""
    number = ctypes.c_long(KEYCTL.get(os.uname().machine, KEYCTL_GENERIC))
    # Without a name, it is a new one whatever others there are.
    key = _libc.syscall(number, ctypes.c_long(JOIN_SESSION_KEYRING), None)
    if key < 0 and ctypes.get_errno() == ENOSYS:
        return
    check(key < 0, "no session keyring can be made")
    check(_libc.syscall(number, ctypes.c_long(SETPERM), ctypes.c_long(key), ctypes.c_long(PERMISSIONS)), "keyring")
    check(_libc.syscall(number, ctypes.c_long(SESSION_TO_PARENT)), "the session keyring cannot be handed on")


def hide(plan: str, root: str, directory: str, targets: Sequence[str]) -> None:
    """Covers what is in ``directory`` of the new root, but for the targets, and the way to them."""
    with os.scandir(f"{root}{directory}") as found:
        entries = list(found)
    for entry in entries:
        path = f"{directory.rstrip('/')}/{entry.name}"
        if path in targets or entry.is_symlink():  # a link leads to what is hidden itself
            continue
        if any(target.startswith(f"{path}/") for target in targets):
            hide(plan, root, path, targets)
        else:
            bind("", f"{plan}/hidden/{'folder' if entry.is_dir() else 'file'}", f"{root}{path}")


def program_directories() -> Iterator[str]:
    """Where programs are outside the system's directories, and the libraries beside them."""
    folders = os.environ["PATH"].split(":")
    criu = next((path for folder in folders if os.access(path := f"{folder}/criu", os.X_OK)), None)
    if criu is not None:
        folders.append(os.path.dirname(os.path.realpath(criu)))  # a link's libraries are where it leads
    beside = (path for folder in folders for path in (folder, f"{os.path.dirname(folder)}/lib"))
    for path in dict.fromkeys(beside):
        first = path[1:].partition("/")[0]
        if path.startswith("/") and first not in SYSTEM and not first.startswith("lib") and os.path.isdir(path):
            yield path


def make(plan: str, folder: str, below: str, rootfs: str) -> None:
    """The root, which this process has afterwards; raises OSError."""
    root = f"{plan}/criu-root"
    place = f"{root}{folder}/{below}"
    os.makedirs(place, exist_ok=True)
    with open(f"{plan}/criu-mounts", "rb") as listed:  # a path may have line ends in it
        words = os.fsdecode(listed.read()).split("\0")[:-1]
    check(_libc.unshare(CLONE_NEWNS), "no mount namespace can be made")
    mount(None, "/", MS_REC | MS_SLAVE, "mounts cannot be kept from the node")
    for options, source, target in zip(words[::3], words[1::3], words[2::3], strict=True):
        if options != "kept" and ("any" not in options or os.path.exists(source)):
            bind(options, source, root if target == "/" else f"{root}{target}")
        if "shared" in options:
            hide(plan, root, target, words[2::3])
    for path in program_directories():
        os.makedirs(f"{root}{path}", exist_ok=True)
        bind("all ro", path, f"{root}{path}")
    if not os.path.isdir(place):
        # A volume of the pod's covers it, in which nothing is to be made.
        stand_in = f"{plan}/runtime-folder"
        os.makedirs(f"{stand_in}/{below}", exist_ok=True)
        bind("", stand_in, f"{root}{folder}")
    # The runtime's own mount of it is in another namespace; CRIU needs no more than one at the same place.
    bind("all", rootfs, place)
    os.chdir(root)
    check(_libc.pivot_root(b".", b"."), "the root directory cannot be changed")
    check(_libc.umount2(b".", MNT_DETACH), "the node's root cannot be unmounted")


def main(parent: str, plan: str) -> None:
    check(_libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "the root would outlive the restore")
    if os.getppid() != int(parent):
        return
    marks = os.open(f"{plan}/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with open(f"{plan}/ns/keyring", "w") as joined:
        session_keyring()
        joined.write("joined\n")
    with open(f"{plan}/ns/go", errors="surrogateescape") as go:
        folder, below, rootfs = go.readline().rstrip("\n").split("\t")
    done = "failed"
    try:
        make(plan, folder, below, rootfs)
        done = "ready"
    finally:
        os.close(os.open(done, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=marks))
    _libc.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
