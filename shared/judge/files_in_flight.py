"""Files that were sent over a Unix socket and not yet received (SCM_RIGHTS, unix(7)).

CRIU opens such a file in whatever process has the other end, sends it and closes it (criu/sk-unix.c,
unix_note_scm_rights). After the restore no process shows it, so nobody could look at what CRIU has opened. A file that
some process holds as well is judged and looked at as that process' own; so only what has no path may be in flight
alone.
"""

from __future__ import annotations

from typing import Final

from shared.criu.dump import Dump
from shared.criu.open_files import OpenFile, UnixSocket

_WITHOUT_PATH: Final = frozenset({
    "pipe", "eventfd", "eventpoll", "signalfd", "timerfd", "memfd", "inetsk", "unixsk", "netlinksk",
})  # fmt: skip
"""Kinds that CRIU makes anew, without opening anything by its path."""


def may_be_in_flight(file: OpenFile, dump: Dump) -> bool:
    """Whether ``file`` may be sent to whoever receives it."""
    if any(each.file == file.id and each.kind == file.kind for each in dump.descriptors):
        return True
    return file.kind in _WITHOUT_PATH and not (isinstance(file, UnixSocket) and file.path is not None)
