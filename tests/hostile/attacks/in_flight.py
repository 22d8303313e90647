"""Files on their way between Unix sockets, which no process shows once they are restored."""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, Victim, add
from tests.hostile.forgery import Forgery


def _sent(path: str, mode: int = stat.S_IFREG | 0o644, flags: int = os.O_RDONLY, at: str = "/") -> Change:
    def change(forgery: Forgery) -> None:
        for number, peer in ((3000, 3001), (3001, 3000)):
            options = pb.SkOptsEntry(so_sndbuf=212_992, so_rcvbuf=212_992)
            usk = pb.UnixSkEntry(id=number, ino=number, type=socket.SOCK_STREAM, state=1, peer=peer, opts=options)
            forgery.open_file(pb.FileEntry(type=5, id=number, usk=usk), number - 2900)
        table = forgery.image(f"fdinfo-{forgery.ids().files_id}.img")
        entry: Any = forgery.open_path(path, mode, flags, mnt_id=forgery.mount(at).mnt_id)
        table.pop()
        packet = pb.SkPacketEntry(id_for=3000, length=1, scm=[pb.ScmEntry(type=1, rights=[entry.id])])
        forgery.new_image("sk-queues.img", packet)
        forgery.behind["sk-queues.img"] = b"x"

    return change


_PLACES: tuple[tuple[str, int, int, str, Victim], ...] = (
    ("/proc/sys/kernel/core_pattern", stat.S_IFREG | 0o644, os.O_WRONLY, "/proc", "ordinary"),
    ("/dev/mem", stat.S_IFCHR | 0o640, os.O_RDWR, "/dev", "ordinary"),
    ("/read/secret", stat.S_IFREG | 0o600, os.O_RDWR, "/read", "mounted"),
    ("/etc/passwd", stat.S_IFREG | 0o644, os.O_RDONLY, "/", "ordinary"),
)
for _path, _mode, _flags, _at, _victim in _PLACES:
    add(f"{_path} on its way through a socket", "FileExceeds", _sent(_path, _mode, _flags, _at), _victim)
