"""Pseudo-terminals: CRIU opens the file of one as root, gives it an owner and permissions, and writes to it."""

from __future__ import annotations

import os
import stat
from typing import Any

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, Victim, add
from tests.hostile.forgery import Forgery

CHARACTER = stat.S_IFCHR | 0o620
_SLAVE = os.makedev(136, 0)


def _terminal(path: str, at: str, mode: int = CHARACTER, flags: int = os.O_RDWR, **info: Any) -> Change:
    """A slave whose file is ``path`` on the mount ``at``."""

    def change(forgery: Forgery) -> None:
        file = forgery.open_path(path, mode, os.O_RDWR, mnt_id=forgery.mount(at).mnt_id, descriptor=76)
        forgery.image(f"fdinfo-{forgery.ids().files_id}.img").pop()  # the terminal alone has it open
        settings = {"type": 1, "sid": 1, "pgrp": 1, "rdev": _SLAVE, "dev": 99, "uid": 0, "gid": 5} | info
        entry = pb.TtyInfoEntry(id=0, pty=pb.TtyPtyEntry(index=0), **settings)
        forgery.new_image("tty-info.img", entry)
        tty = pb.TtyFileEntry(tty_info_id=0, flags=flags, regf_id=file.id)
        forgery.open_file(pb.FileEntry(type=11, id=2000, tty=tty))
        forgery.new_image("tty-data.img", pb.TtyDataEntry(tty_id=0, data=b"root::0:0::/:/bin/sh\n"))

    return change


_PLACES: tuple[tuple[str, str, Victim], ...] = (
    ("/etc/passwd", "/", "ordinary"),
    ("/proc/sys/kernel/core_pattern", "/proc", "ordinary"),
    ("/read/secret", "/read", "mounted"),
    ("/write/file", "/write", "mounted"),
)
for _path, _at, _victim in _PLACES:
    add(f"{_path} as a terminal's file", "ImageDamaged", _terminal(_path, _at, stat.S_IFREG | 0o600), _victim)
    add(f"{_path} as a terminal's file, said to be a device", "FileExceeds", _terminal(_path, _at), _victim)
add("another terminal than its number says", "FileExceeds", _terminal("/dev/pts/1", "/dev/pts"))
add("a terminal by way of the processes", "FileExceeds", _terminal("/proc/self/fd/0", "/proc"))
add(
    "a terminal that empties its file",
    "FieldExceeds",
    _terminal("/dev/pts/0", "/dev/pts", flags=os.O_RDWR | os.O_TRUNC),
)
add("a terminal that makes its file", "FieldExceeds", _terminal("/dev/pts/0", "/dev/pts", flags=os.O_RDWR | os.O_CREAT))
add("a terminal of another user", "IdentityExceeds", _terminal("/dev/pts/0", "/dev/pts", uid=33), "user")
add("a terminal of another group", "IdentityExceeds", _terminal("/dev/pts/0", "/dev/pts", gid=42), "user")
add(
    "a terminal with permissions beyond those of files",
    "ImageDamaged",
    _terminal("/dev/pts/0", "/dev/pts", stat.S_IFCHR | 0o4777),
)
