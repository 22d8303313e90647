"""The flags that an open file may have, and who gets its signals: fields that entries of every kind share.

Sources: open(2), fcntl(2) (F_SETOWN_EX, F_SETSIG), linux asm-generic/fcntl.h, fs/open.c (do_dentry_open forgets how the
file was made), criu/files.c (rst_file_params, restore_fown).
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Final

from shared.judge import waking
from shared.judge.rules import Fields, Rule, bounded, free

MAKING: Final = 0o100 | 0o200 | 0o400 | 0o1000
"""O_CREAT, O_EXCL, O_NOCTTY and O_TRUNC, which the kernel forgets once the file is open."""
TMPFILE: Final = 0o20000000
"""__O_TMPFILE; CRIU leaves it out when it opens the file (criu/files-reg.c, do_open_reg_noseek_flags)."""
PATH: Final = 0o10000000
"""O_PATH."""
_STATUS: Final = (
    0o3  # O_ACCMODE
    | 0o2000  # O_APPEND
    | 0o4000  # O_NONBLOCK
    | 0o4010000  # O_SYNC with O_DSYNC
    | 0o20000  # O_ASYNC
    | 0o740000  # O_DIRECT, O_LARGEFILE, O_DIRECTORY and O_NOFOLLOW: other bits of these on x86-64 than on aarch64
    | 0o1000000  # O_NOATIME
    | 0o2000000  # O_CLOEXEC
)
UID_MAX: Final = (1 << 32) - 2
"""CRIU passes it to setresuid(2), where -1 means: stay root."""
SIGNALS_MAX: Final = 64
_OWNER_TYPES: Final = (0, 1, 2)
"""F_OWNER_TID, F_OWNER_PID and F_OWNER_PGRP."""
KINDS_OF_FILE: Final = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFLNK})

FIELDS: Final[Fields] = {
    "FownEntry": {
        "uid": bounded("one that the container may be", lambda uid: uid <= UID_MAX),
        "euid": bounded("one that the container may be", lambda uid: uid <= UID_MAX),
        "signum": bounded(
            f"a signal's number; {waking.WHY}", lambda signal: signal <= SIGNALS_MAX and not waking.wakes(signal)
        ),
        "pid_type": bounded("a thread, a process or a group", lambda kind: kind in _OWNER_TYPES),
        "pid": bounded("a thread, process or group of the dump"),
    },
}


def flags_rule(why: str, also: int = 0) -> Rule:
    """The rule for a field that holds what fcntl(2) F_GETFL tells."""
    return bounded(f"{why}; nothing that makes or empties a file", allows(also))


def allows(also: int = 0) -> Callable[[int], bool]:
    allowed = _STATUS | also
    return lambda flags: not flags & ~allowed


def owner_rule() -> Rule:
    return free("FownEntry has rules of its own")


def id_rule() -> Rule:
    return bounded("the number of the file, once in files.img, and the same as its entry's")
