"""Which open files a socket may hold for a receiver that has not taken them yet (SCM_RIGHTS, unix(7)).

CRIU opens such a file like every other one, as root (criu/sk-unix.c, unix_note_scm_rights), and sends it. No /proc shows
it until somebody receives it, so what is looked at after the restore (nri_plugin/restore/cover.py) does not see it. A
file that a process holds as well is looked at there; a file that has no path needs no look.
"""

from __future__ import annotations

from typing import Final

from shared.criu.dump import Dump
from shared.criu.open_files import OpenFile, UnixSocket

_WITHOUT_PATH: Final = frozenset({"pipe", "eventfd", "signalfd", "timerfd", "memfd", "inetsk", "netlinksk"})


def may_be_in_flight(file: OpenFile, dump: Dump) -> bool:
    """Whether ``file`` may wait in a socket: a living process holds it too, or it was opened by no path."""
    if file.kind in _WITHOUT_PATH or (isinstance(file, UnixSocket) and file.path is None):
        return True
    return any(descriptor.file == file.id and descriptor.kind == file.kind for descriptor in dump.descriptors)
