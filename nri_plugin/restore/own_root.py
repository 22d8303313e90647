"""Makes the root directory that CRIU is started in, of the mount namespace that it is called in, and holds that.

``python own_root.py RUNTIME PLAN FOLDER BELOW ROOTFS``: PLAN/criu-mounts has entries ``OPTIONS``, ``SOURCE``,
``TARGET``, each ended by a zero byte: a bind mount of SOURCE at TARGET in PLAN/criu-root, with its mounts below
(``all``), read-only (``ro``), left out where there is no SOURCE (``any``), all in it hidden that no other entry names
(``shared``); ``kept`` is seen in such a mount and mounts nothing. ROOTFS comes to FOLDER/BELOW, where the runtime has
it mounted for CRIU. Directories of PATH that are outside the system's are added, as is what lies beside criu there.

PLAN/ns/ready says that all is done; the process then stays until its parent, the process RUNTIME, ends. A mount on the
namespace's file could hold it too, but since Linux 6.18 namespaces are not numbered in order, and the kernel takes some
such mounts for loops (fs/namespace.c, mnt_ns_loop). Run while the runtime starts; stands alone, as cover.py does.

Sources: mount(2), pivot_root(2) (the paragraph on "."), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MNT_DETACH = 1, 32, 4096, 16384, 2
PR_SET_PDEATHSIG = 1
KEPT_FLAGS = 2 | 4 | 8
"""MS_NOSUID, MS_NODEV, MS_NOEXEC, which statvfs(3) calls by the same numbers."""
SYSTEM = ("bin", "sbin", "usr", "nix", "gnu")
"""Directories that criu_root.py lists anyway, beside those that begin with "lib"."""

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Exits, saying why, where a call failed."""
    if result:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def bind(options: str, source: str, target: str) -> None:
    flags = MS_BIND | (MS_REC if "all" in options else 0)
    paths = os.fsencode(source), os.fsencode(target)
    check(_libc.mount(*paths, None, ctypes.c_ulong(flags), None), f"{source} cannot be mounted at {target}")
    if "ro" in options:
        flags = MS_REMOUNT | MS_BIND | MS_RDONLY | os.statvfs(target).f_flag & KEPT_FLAGS
        check(_libc.mount(None, paths[1], None, ctypes.c_ulong(flags), None), f"{target} cannot be made read-only")


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
    if program := shutil.which("criu"):
        folders.append(str(Path(program).resolve().parent))  # a link's libraries are where it leads
    beside = (path for folder in folders for path in (folder, f"{os.path.dirname(folder)}/lib"))  # noqa: PTH120
    for path in dict.fromkeys(beside):
        first = path[1:].partition("/")[0]
        if path.startswith("/") and first not in SYSTEM and not first.startswith("lib") and os.path.isdir(path):  # noqa: PTH112
            yield path


def main(runtime: str, plan: str, folder: str, below: str, rootfs: str) -> None:
    check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "the root would outlive the runtime")
    if os.getppid() != int(runtime):
        sys.exit("the runtime has ended")
    root = f"{plan}/criu-root"
    namespaces = os.open(f"{plan}/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = f"{root}{folder}/{below}"
    os.makedirs(place, exist_ok=True)  # noqa: PTH103
    words = Path(plan, "criu-mounts").read_text(errors="surrogateescape").split("\0")[:-1]
    for options, source, target in zip(words[::3], words[1::3], words[2::3], strict=True):
        if options != "kept" and ("any" not in options or os.path.exists(source)):  # noqa: PTH110
            bind(options, source, root if target == "/" else f"{root}{target}")
        if "shared" in options:
            hide(plan, root, target, words[2::3])
    for path in program_directories():
        os.makedirs(f"{root}{path}", exist_ok=True)  # noqa: PTH103
        bind("all ro", path, f"{root}{path}")
    if not os.path.isdir(place):  # noqa: PTH112
        # A volume of the pod's covers it, in which nothing is to be made.
        stand_in = f"{plan}/runtime-folder"
        os.makedirs(f"{stand_in}/{below}", exist_ok=True)  # noqa: PTH103
        bind("", stand_in, f"{root}{folder}")
    # The runtime's own mount of it is in another namespace; CRIU needs no more than one at the same place.
    bind("all", rootfs, place)
    os.chdir(root)
    check(_libc.pivot_root(b".", b"."), "the root directory cannot be changed")
    check(_libc.umount2(b".", MNT_DETACH), "the node's root cannot be unmounted")
    os.close(os.open("ready", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=namespaces))
    os.close(namespaces)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
