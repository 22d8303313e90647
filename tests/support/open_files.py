"""A synthetic dump that has one open file of nearly every kind, as an ordinary container may."""

from __future__ import annotations

import stat
from typing import Any

from shared.criu import criu_pb2 as pb
from shared.criu.images import Kind, join
from tests.support.checkpoints import SyntheticDump, completed
from tests.support.pods import Security, synthetic_dump

FIFO, DELETED, DELETED_FOLDER, UNNAMED, CHILD_OF_PROC, MASTER, SLAVE, CTTY = 11, 13, 14, 15, 16, 20, 22, 24
EPOLL, EVENTFD, MEMFD, INOTIFY, LOCKED, FANOTIFY, SENT = 30, 31, 32, 33, 35, 36, 37
"""Numbers of files; those of FIFOs and terminals have their regular file behind them."""


def with_every_kind(security: Security | None = None) -> SyntheticDump:
    """Process 1 has all of them open, from descriptor 10 on."""
    made = synthetic_dump(security or Security(tty=True), 1)
    root, pts, dev = (made.mount(path).mnt_id for path in ("/", "/dev/pts", "/dev"))
    data = made.mount("/data").mnt_id

    def regular(number: int, path: str, mode: int, mount: int = root, **fields: Any) -> pb.FileEntry:
        reg = pb.RegFileEntry(id=number, name=path.encode(), mode=mode, mnt_id=mount, **fields)
        return pb.FileEntry(type=1, id=number, reg=reg)

    def terminal(number: int, info: int) -> pb.FileEntry:
        tty = pb.TtyFileEntry(id=number, tty_info_id=info, flags=2, regf_id=number + 1)
        return pb.FileEntry(type=11, id=number, tty=tty)

    def settings(number: int, kind: int, rdev: int, index: int | None) -> pb.TtyInfoEntry:
        characters = pb.TermiosEntry(c_iflag=1280, c_cc=[3] * 8 + [4711] * 11)
        info = pb.TtyInfoEntry(
            id=number, type=kind, sid=1, pgrp=1, rdev=rdev, dev=99, uid=0, gid=5, exclusive=False,
            termios=characters, termios_locked=pb.TermiosEntry(c_cc=[0] * 19), winsize=pb.WinsizeEntry(ws_row=24),
        )  # fmt: skip
        if index is not None:
            info.pty.index = index
        return info

    character, owner = stat.S_IFCHR | 0o620, pb.FownEntry(uid=0, euid=0, signum=10, pid_type=1, pid=1)
    opened = [
        pb.FileEntry(type=3, id=FIFO, fifo=pb.FifoEntry(id=FIFO, pipe_id=51, regf_id=FIFO + 1)),
        regular(DELETED, "/tmp/gone", stat.S_IFREG | 0o600, flags=2, fown=owner),
        regular(DELETED_FOLDER, "/tmp/folder", stat.S_IFDIR | 0o755),
        regular(UNNAMED, "/tmp/#38", stat.S_IFREG | 0o600, flags=0o20200002),
        regular(CHILD_OF_PROC, "/proc/44/stat", stat.S_IFREG | 0o444, made.mount("/proc").mnt_id),
        terminal(MASTER, 1),
        terminal(SLAVE, 0),
        terminal(CTTY, 2012),
        pb.FileEntry(type=7, id=EPOLL, epfd=pb.EventpollFileEntry(id=EPOLL, tfd=[pb.EventpollTfdEntry(tfd=0)])),
        pb.FileEntry(type=6, id=EVENTFD, efd=pb.EventfdFileEntry(id=EVENTFD, counter=5)),
        pb.FileEntry(type=18, id=MEMFD, memfd=pb.MemfdFileEntry(id=MEMFD, inode_id=1)),
        pb.FileEntry(
            type=8,
            id=INOTIFY,
            ify=pb.InotifyFileEntry(
                id=INOTIFY,
                wd=[
                    pb.InotifyWdEntry(
                        i_ino=9, s_dev=57, wd=1, f_handle=pb.FhEntry(handle=[7], path=b"/data/conf", mnt_id=data)
                    ),
                    pb.InotifyWdEntry(i_ino=36, s_dev=46, wd=2, f_handle=pb.FhEntry(handle=[8])),
                ],
            ),
        ),
        regular(LOCKED, "/tmp/lock", stat.S_IFREG | 0o644, flags=2),
    ]
    beside = [
        regular(FIFO + 1, "/tmp/fifo", stat.S_IFIFO | 0o644, flags=2),
        regular(MASTER + 1, "/dev/pts/ptmx", character, pts, flags=2),
        regular(SLAVE + 1, "/dev/pts/0", character, pts, flags=2),
        regular(CTTY + 1, "/dev/tty", character, dev, flags=2),
    ]
    for number, entry in enumerate(opened, start=10):
        made.add_file(entry, descriptor=number)
    made.images["files.img"] += beside
    made.images["tty-info.img"] = [settings(1, 1, 1282, 0), settings(0, 1, 34816, 0), settings(2012, 4, 1280, None)]
    made.images["tty-data.img"] = [pb.TtyDataEntry(tty_id=0, data=b"typed\n")]
    made.images["memfd.img"] = [pb.MemfdInodeEntry(name=b"app", size=4096, shmid=77, seals=1, inode_id=1)]
    made.raw["pagemap-shmem-77.img"] = join(Kind.SHMEM_PAGEMAP, [pb.PagemapHead(pages_id=77)])
    made.images["remap-fpath.img"] = [
        pb.RemapFilePathEntry(orig_id=DELETED, remap_id=1, remap_type=1),
        pb.RemapFilePathEntry(orig_id=DELETED_FOLDER, remap_id=2, remap_type=1),
        pb.RemapFilePathEntry(orig_id=UNNAMED, remap_id=3, remap_type=1),
        pb.RemapFilePathEntry(orig_id=CHILD_OF_PROC, remap_id=44, remap_type=2),
    ]
    ghost = pb.GhostFileEntry(uid=0, gid=0, mode=stat.S_IFREG | 0o600, dev=46, ino=36)
    made.raw["ghost-file-1.img"] = join(Kind.GHOST_FILE, [ghost]) + b"gone"
    made.images["ghost-file-2.img"] = [pb.GhostFileEntry(uid=0, gid=0, mode=stat.S_IFDIR | 0o755)]
    set_chunks(made, (0, b"start"), (4096, b"end"))
    set_data(made, Kind.FIFO_DATA, pb.PipeDataEntry(pipe_id=51, size=65536), b"in a fifo")
    set_data(made, Kind.PIPES_DATA, pb.PipeDataEntry(pipe_id=31, size=65536), b"in a pipe")
    made.images["filelocks.img"] = [pb.FileLockEntry(flag=1, type=1, pid=1, fd=22, start=0, len=10)]
    return made


def set_chunks(made: SyntheticDump, *chunks: tuple[int, bytes], size: int | None = 5000) -> None:
    """The content of the deleted file without a name, as pieces between holes."""
    entry = pb.GhostFileEntry(uid=0, gid=0, mode=stat.S_IFREG | 0o600, chunks=True, size=size)
    image = join(Kind.GHOST_FILE, [entry])
    for offset, content in chunks:
        message = pb.GhostChunkEntry(len=len(content), off=offset).SerializeToString()
        image += len(message).to_bytes(4, "little") + message + content
    made.raw["ghost-file-3.img"] = image


def set_data(made: SyntheticDump, kind: Kind, entry: pb.PipeDataEntry, content: bytes) -> None:
    """The only entry of an image of what pipes held."""
    entry.handle_bytes = len(content)
    made.raw[kind.file()] = join(kind, [completed(entry)]) + content
