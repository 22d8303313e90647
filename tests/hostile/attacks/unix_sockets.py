"""Unix sockets and deleted files whose paths lead CRIU elsewhere while it removes, binds, connects or makes them."""

from __future__ import annotations

import socket
import stat
import tarfile
from typing import Any

from shared.criu import criu_pb2 as pb
from shared.criu.images import Kind, join
from tests.hostile.attack import Change, add, twin
from tests.hostile.forgery import Forgery
from tests.support.checkpoints import member

_LISTENS = 10


def bound(
    forgery: Forgery, path: str, *, held: bool = True, uflags: int = 0, folder: str = "", gone: bool = False
) -> None:
    """One more listening socket at ``path``, which CRIU removes again where it is ``gone``."""
    name = path.encode() + b"\0"
    usk = pb.UnixSkEntry(id=3000, ino=30_001, type=socket.SOCK_STREAM, state=_LISTENS, peer=0, name=name)
    usk.uflags = uflags
    if gone:
        usk.deleted = True
    if folder:
        usk.name_dir = folder.encode()
    usk.backlog = 5
    usk.fown.CopyFrom(pb.FownEntry(uid=0, euid=0, signum=0, pid_type=0, pid=0))
    usk.opts.CopyFrom(pb.SkOptsEntry(so_sndbuf=212_992, so_rcvbuf=212_992))
    if held:
        forgery.open_file(pb.FileEntry(type=5, id=3000, usk=usk), 78)
    else:
        forgery.opened.append(pb.FileEntry(type=5, id=3000, usk=usk))


def _bound(path: str, **more: Any) -> Change:
    return lambda forgery: bound(forgery, path, **more)


for _path in ("/proc/self/fd/1007/x", "/proc/1/root/x", "/sys/x", "/dev/pts/x", "/dev/mqueue/x"):
    add(f"a Unix socket at {_path}", "SocketExceeds", _bound(_path))
add("a Unix socket upwards", "SocketExceeds", _bound("/tmp/../../x"))
add("a Unix socket at a relative path", "SocketExceeds", _bound("x", folder="tmp"))
add("a Unix socket upwards from its folder", "SocketExceeds", _bound("../x", folder="/tmp"))
add("a Unix socket from outside", "FieldExceeds", _bound("/tmp/x", uflags=1))
add("a Unix socket that nobody holds", "FieldExceeds", _bound("/run/containerd/containerd.sock", held=False))
add("a Unix socket on a read-only volume", "SocketExceeds", _bound("/read/x"), "mounted")
add("a Unix socket deleted from a read-only volume", "SocketExceeds", _bound("/read/a/x", gone=True), "mounted")
add("a Unix socket at a relative path on a read-only volume", "SocketExceeds", _bound("x", folder="/read"), "mounted")
add("a Unix socket in place of a volume", "SocketExceeds", _bound("/write"), "mounted")
add("a Unix socket in a read-only root", "SocketExceeds", _bound("/root/x"), "mounted")


def _linked(target: str) -> Change:
    def change(forgery: Forgery) -> None:
        forgery.diff([member("link", kind=tarfile.SYMTYPE, linkname=target)])
        bound(forgery, "/link/x")

    return change


for _target in ("/proc/self/fd", "/etc"):
    add(f"a Unix socket by a link in the root to {_target}", "FileExceeds", _linked(_target), by_node=True)


def deleted(forgery: Forgery, path: str) -> None:
    """A deleted file that CRIU makes again, with its content, to open it."""
    entry = forgery.open_path(path, stat.S_IFREG | 0o644)
    ghost = pb.GhostFileEntry(uid=0, gid=0, mode=stat.S_IFREG | 0o644)
    forgery.raw("ghost-file-1.img", join(Kind.GHOST_FILE, [ghost]) + b"attack\n")
    forgery.new_image("remap-fpath.img", pb.RemapFilePathEntry(orig_id=entry.id, remap_id=1, remap_type=1))


def _deleted_by_a_link(forgery: Forgery) -> None:
    forgery.diff([member("link", kind=tarfile.SYMTYPE, linkname="/etc")])
    deleted(forgery, "/link/x")


add("a deleted file by a link in the root", "FileExceeds", _deleted_by_a_link, by_node=True)


@twin("a Unix socket of its own", proof="test -S /tmp/own.sock && grep -q /tmp/own.sock /proc/net/unix")
def _own(forgery: Forgery) -> None:
    bound(forgery, "/tmp/own.sock")


@twin("a Unix socket on a volume", "mounted", proof="test -S /write/own.sock")
def _on_a_volume(forgery: Forgery) -> None:
    bound(forgery, "/write/own.sock")


@twin("a Unix socket deleted from a volume", "mounted", proof="test ! -e /write/own.sock")
def _deleted_from_a_volume(forgery: Forgery) -> None:
    bound(forgery, "/write/own.sock", gone=True)


@twin("a Unix socket below /var/run", proof="grep -q /var/run/own.sock /proc/net/unix")
def _by_var_run(forgery: Forgery) -> None:
    bound(forgery, "/var/run/own.sock")
