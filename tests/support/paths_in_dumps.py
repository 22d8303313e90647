"""Dumps that have one thing at a path: a file, a socket, a watch, a FIFO."""

from __future__ import annotations

from shared.criu import criu_pb2 as pb
from tests.support.checkpoints import SyntheticDump


def with_socket(path: str) -> SyntheticDump:
    """A Unix socket bound at ``path``."""
    dump = SyntheticDump.of_processes()
    dump.add_file(
        pb.FileEntry(type=5, id=77, usk=pb.UnixSkEntry(id=77, ino=9, type=1, state=10, name=path.encode())),
        descriptor=9,
    )
    return dump


def with_file(path: str, volume: str | None = None) -> SyntheticDump:
    """A file open at ``path``, on a volume there if one is named."""
    dump = SyntheticDump.of_processes()
    if volume:
        dump.add_mount(volume, ext_key=volume.encode())
    reg = pb.RegFileEntry(id=77, name=path.encode(), mnt_id=dump.mount_of(path).mnt_id, mode=0o100644)
    dump.add_file(pb.FileEntry(type=1, id=77, reg=reg), descriptor=9)
    return dump


def with_watch(path: str) -> SyntheticDump:
    """A watch of ``path``."""
    dump = SyntheticDump.of_processes()
    handle = pb.FhEntry(path=path.encode(), mnt_id=dump.mount_of(path).mnt_id)
    watcher = pb.InotifyFileEntry(id=77, wd=[pb.InotifyWdEntry(wd=1, f_handle=handle)])
    dump.add_file(pb.FileEntry(type=8, id=77, ify=watcher), descriptor=9)
    return dump


def with_fifo(path: str) -> SyntheticDump:
    """A FIFO open at ``path``."""
    dump = with_file(path)
    dump.images["files.img"][-1].reg.mode = 0o010600  # type: ignore[attr-defined]
    dump.add_file(pb.FileEntry(type=3, id=78, fifo=pb.FifoEntry(id=78, pipe_id=5, regf_id=77)), descriptor=10)
    return dump


def with_odd_name(name: bytes) -> SyntheticDump:
    """A file open whose name is not what a path in a root is."""
    dump = with_file("/srv/x")
    dump.images["files.img"][-1].reg.name = name  # type: ignore[attr-defined]
    return dump
