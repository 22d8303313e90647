"""Images of open files: what must agree in them, what the live pod must allow, and what is written of them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.images import ImageDirectory, Kind
from shared.errors import CheckpointInvalid, Refused
from shared.judge.files import image_files, refusals, relations
from shared.judge.writing import ImageFile
from tests.support.checkpoints import SyntheticDump
from tests.support.file_rules import RULES
from tests.support.open_files import (
    CTTY,
    DELETED,
    EPOLL,
    EVENTFD,
    FIFO,
    INOTIFY,
    LOCKED,
    MASTER,
    MEMFD,
    SLAVE,
    set_chunks,
    set_data,
    with_every_kind,
)
from tests.support.pods import InMemory, Security, read, spec

Change = Callable[[SyntheticDump], None]
USER = Security(uid=1000, gid=1000, drop=("ALL",), no_new_privileges=True, tty=True)


def opened(made: SyntheticDump) -> ImageDirectory:
    return ImageDirectory(InMemory(made.files()), "checkpoint")


def written(made: SyntheticDump) -> dict[str, ImageFile]:
    return {each.name: each for each in image_files(opened(made), read(made), RULES)}


def content(made: SyntheticDump, image: ImageFile) -> bytes:
    whole = made.files("")[image.name]
    parts = [
        each if isinstance(each, bytes) else whole[each.offset :][: len(whole) if each.size is None else each.size]
        for each in image.pieces
    ]
    return b"".join(parts)


def refused(made: SyntheticDump, pod: Security) -> list[str]:
    images, dump = opened(made), read(made)
    found = [*relations(images, dump), *refusals(images, dump, spec(pod))]
    return [f"{each.reason}: {each.sentence}" for each in found]


def entry(made: SyntheticDump, number: int) -> Any:
    return next(each for each in made.images["files.img"] if each.id == number)  # type: ignore[attr-defined]


@pytest.mark.parametrize("pod", [Security(tty=True), USER], ids=["root", "user"])
def test_one_of_every_kind_passes(pod: Security) -> None:
    assert refused(with_every_kind(pod), pod) == []


def test_what_is_written_is_what_was_dumped_but_for_what_criu_does_not_need() -> None:
    made = with_every_kind()
    images = written(made)
    same = {name for name, image in images.items() if content(made, image) == made.files("")[name]}
    assert set(images) - same == {"files.img", "tty-info.img"}
    assert {"fdinfo-1.img", "fifo-data.img", "pipes-data.img", "memfd.img", "filelocks.img"} <= same
    assert {"remap-fpath.img", "ghost-file-1.img", "ghost-file-2.img", "ghost-file-3.img", "tty-data.img"} <= same


def test_images_that_nothing_reaches_are_not_written() -> None:
    made = with_every_kind()
    made.images["ghost-file-9.img"] = [pb.GhostFileEntry(uid=0, gid=0, mode=0o104755)]
    made.images["fdinfo-9.img"] = [pb.FdinfoEntry(id=1, type=1, fd=0)]
    assert not {"ghost-file-9.img", "fdinfo-9.img"} & set(written(made))


def test_file_that_nobody_holds_is_not_written() -> None:
    made = with_every_kind()
    descriptors = made.images["fdinfo-1.img"]
    made.images["fdinfo-1.img"] = [each for each in descriptors if each.id not in (EVENTFD, SLAVE)]  # type: ignore[attr-defined]
    images = written(made)
    numbers = {each.id for each in files_of(made, images["files.img"])}
    assert not {EVENTFD, SLAVE} & numbers
    assert {SLAVE + 1, MEMFD} <= numbers
    assert "tty-data.img" not in images


def test_dumps_that_differ_in_what_criu_does_not_need_are_written_alike() -> None:
    other = with_every_kind()
    entry(other, INOTIFY).ify.wd[0].f_handle.handle[:] = [1, 2, 3]
    entry(other, EPOLL).epfd.tfd[0].inode = 4711
    entry(other, EVENTFD).efd.fown.uid = 7
    info: Any = other.images["tty-info.img"][0]
    info.termios.c_cc[8:] = [0] * 11
    info.dev = 5
    made = with_every_kind()
    for name, image in written(made).items():
        assert content(made, image) == content(other, written(other)[name])


def test_terminal_is_not_locked() -> None:
    made = with_every_kind()
    locked: Any = made.images["tty-info.img"][0]
    locked.termios_locked.c_lflag = 0xFFFFFFFF
    image = content(made, written(made)["tty-info.img"])
    directory = ImageDirectory(InMemory({"tty-info.img": image}), "")
    first = directory.entries(Kind.TTY_INFO, pb.TtyInfoEntry)[0]
    assert first.termios_locked.c_lflag == 0
    assert len(first.termios_locked.c_cc) == len(first.termios.c_cc) == 19


def files_of(made: SyntheticDump, image: ImageFile) -> Sequence[pb.FileEntry]:
    return ImageDirectory(InMemory({"files.img": content(made, image)}), "").entries(Kind.FILES, pb.FileEntry)


def part(number: int, **fields: Any) -> Change:
    """Fields of the part that a file's entry has."""

    def change(made: SyntheticDump) -> None:
        found = entry(made, number)
        (its,) = [value for field, value in found.ListFields() if field.message_type is not None]
        for key, value in fields.items():
            setattr(its, key, value)

    return change


def decoy(made: SyntheticDump) -> None:
    entry(made, EVENTFD).reg.CopyFrom(pb.RegFileEntry(id=EVENTFD, name=b"/etc/shadow", mode=0o100600, mnt_id=147))


def other_part(made: SyntheticDump) -> None:
    entry(made, EVENTFD).type = 9


def no_part(made: SyntheticDump) -> None:
    entry(made, EVENTFD).ClearField("efd")


def number_twice(made: SyntheticDump) -> None:
    made.images["files.img"].append(pb.FileEntry(type=6, id=LOCKED, efd=pb.EventfdFileEntry(id=LOCKED)))


def no_mount(made: SyntheticDump) -> None:
    entry(made, LOCKED).reg.ClearField("mnt_id")


def signals_to(pid: int) -> Change:
    def change(made: SyntheticDump) -> None:
        entry(made, EVENTFD).efd.fown.CopyFrom(pb.FownEntry(uid=0, euid=0, signum=9, pid_type=1, pid=pid))

    return change


def other_kind(made: SyntheticDump) -> None:
    made.images["fdinfo-1.img"][-1].type = 18  # type: ignore[attr-defined]


def watched_descriptor(made: SyntheticDump) -> None:
    entry(made, EPOLL).epfd.tfd[0].tfd = 1000


def inode(**fields: Any) -> Change:
    def change(made: SyntheticDump) -> None:
        for key, value in fields.items():
            setattr(made.images["memfd.img"][0], key, value)

    return change


def inode_twice(made: SyntheticDump) -> None:
    made.images["memfd.img"].append(made.images["memfd.img"][0])


def data(kind: Kind, size: int, count: int) -> Change:
    return lambda made: set_data(made, kind, pb.PipeDataEntry(pipe_id=51, size=size), bytes(count))


def data_cut(made: SyntheticDump) -> None:
    made.raw["pipes-data.img"] = made.raw["pipes-data.img"][:-1]


def info(index: int, **fields: Any) -> Change:
    def change(made: SyntheticDump) -> None:
        for key, value in fields.items():
            setattr(made.images["tty-info.img"][index], key, value)

    return change


def pty_index(made: SyntheticDump) -> None:
    made.images["tty-info.img"][1].pty.index = 1  # type: ignore[attr-defined]


def not_a_pty(made: SyntheticDump) -> None:
    made.images["tty-info.img"][1].ClearField("pty")


def some_settings(made: SyntheticDump) -> None:
    made.images["tty-info.img"][1].ClearField("winsize")


def few_characters(made: SyntheticDump) -> None:
    made.images["tty-info.img"][1].termios.c_cc[:] = [0] * 18  # type: ignore[attr-defined]


def remap(index: int, **fields: Any) -> Change:
    def change(made: SyntheticDump) -> None:
        for key, value in fields.items():
            setattr(made.images["remap-fpath.img"][index], key, value)

    return change


def ghost_on_two(made: SyntheticDump) -> None:
    entry(made, DELETED).reg.mnt_id = made.mount("/dev").mnt_id
    remap(2, remap_id=1)(made)


def deleted_terminal(made: SyntheticDump) -> None:
    made.images["remap-fpath.img"].append(pb.RemapFilePathEntry(orig_id=SLAVE + 1, remap_id=1, remap_type=1))


def one_time(made: SyntheticDump) -> None:
    made.images["ghost-file-2.img"] = [
        pb.GhostFileEntry(uid=0, gid=0, mode=stat.S_IFDIR | 0o755, atim=pb.Timeval(tv_sec=1, tv_usec=0))
    ]


def folder_with_content(made: SyntheticDump) -> None:
    made.raw["ghost-file-2.img"] = made.files("")["ghost-file-2.img"] + b"content"
    del made.images["ghost-file-2.img"]


def chunks(*pieces: tuple[int, bytes], size: int | None = 5000) -> Change:
    return lambda made: set_chunks(made, *pieces, size=size)


def chunk_cut(made: SyntheticDump) -> None:
    made.raw["ghost-file-3.img"] = made.raw["ghost-file-3.img"][:-1]


def unnamed_still_there(made: SyntheticDump) -> None:
    del made.images["remap-fpath.img"][2]


def watch_twice(made: SyntheticDump) -> None:
    entry(made, INOTIFY).ify.wd[1].wd = 1


def watch_mount(made: SyntheticDump) -> None:
    entry(made, INOTIFY).ify.wd[0].f_handle.mnt_id = 4711


def watch_path(path: bytes, mount: str = "/data") -> Change:
    def change(made: SyntheticDump) -> None:
        handle = entry(made, INOTIFY).ify.wd[0].f_handle
        handle.path, handle.mnt_id = path, made.mount(mount).mnt_id

    return change


def mark(**fields: Any) -> Change:
    def change(made: SyntheticDump) -> None:
        its = pb.FanotifyFileEntry(id=90, mark=[pb.FanotifyMarkEntry(**fields)])
        made.add_file(pb.FileEntry(type=12, id=90, ffy=its), descriptor=90)

    return change


def lock(**fields: Any) -> Change:
    def change(made: SyntheticDump) -> None:
        for key, value in fields.items():
            setattr(made.images["filelocks.img"][0], key, value)

    return change


DAMAGED: dict[str, tuple[Change, str]] = {
    "decoy part": (decoy, "files.img"),
    "part of another type": (other_part, "files.img"),
    "no part": (no_part, "files.img"),
    "number of the part": (part(EVENTFD, id=1), "files.img"),
    "a number twice": (number_twice, "files.img"),
    "signals to nobody": (signals_to(4711), "no process"),
    "path with two slashes": (part(LOCKED, name=b"//tmp/lock"), "kernel would write otherwise"),
    "path with a dot": (part(LOCKED, name=b"/tmp/./lock"), "kernel would write otherwise"),
    "path with a slash at its end": (part(LOCKED, name=b"/tmp/"), "kernel would write otherwise"),
    "descriptor of another kind": (other_kind, "fdinfo-1.img"),
    "epoll of CRIU's own descriptor": (watched_descriptor, "descriptor 1000"),
    "memory without inode": (part(MEMFD, inode_id=2), "missing inode"),
    "memory's inode twice": (inode_twice, "twice"),
    "memory without pages": (inode(shmid=78), "pagemap-shmem-78.img"),
    "fifo without file": (part(FIFO, regf_id=4711), "missing or no FIFO"),
    "fifo that is a regular file": (part(FIFO, regf_id=LOCKED), "missing or no FIFO"),
    "more data than a pipe holds": (data(Kind.FIFO_DATA, 4096, 4097), "more data"),
    "data cut off": (data_cut, "pipes-data.img"),
    "terminal without a file": (part(SLAVE, regf_id=4711), "missing or no device"),
    "terminal that is a regular file": (part(SLAVE, regf_id=LOCKED), "missing or no device"),
    "terminal that is setuid": (part(SLAVE + 1, mode=stat.S_IFCHR | 0o4777), "missing or no device"),
    "terminal without settings": (part(SLAVE, tty_info_id=5), "says nothing"),
    "terminal that was deleted": (deleted_terminal, "was deleted"),
    "terminal of another number": (info(1, id=2), "another one"),
    "terminal of another kind": (info(1, type=4), "another one"),
    "terminal of another device": (info(1, rdev=1282), "another one"),
    "terminal of a disk's device": (info(1, rdev=os.makedev(8, 0)), "another one"),
    "terminal of another index": (pty_index, "another one"),
    "terminal without an index": (not_a_pty, "another one"),
    "terminal from outside": (info(1, type=5), "another one"),
    "terminal of another session": (info(1, sid=4711), "session 4711"),
    "some settings of a terminal": (some_settings, "some settings"),
    "few characters of a terminal": (few_characters, "special characters"),
    "data of no terminal": (lambda made: setattr(made.images["tty-data.img"][0], "tty_id", 9), "of no one"),
    "data of /dev/tty": (lambda made: setattr(made.images["tty-data.img"][0], "tty_id", 2012), "of no one"),
    "remap of no file": (remap(0, orig_id=4711), "does not have it"),
    "remap of an eventfd": (remap(0, orig_id=EVENTFD), "does not have it"),
    "remap twice": (remap(1, orig_id=DELETED), "twice"),
    "ended process that lives": (remap(3, remap_id=1), "has ended"),
    "ended process of no number": (remap(3, remap_id=1 << 22), "has ended"),
    "one ghost on two file systems": (ghost_on_two, "two file systems"),
    "ghost of another kind": (remap(0, remap_id=2), "another kind"),
    "one time of a ghost": (one_time, "one time"),
    "folder with content": (folder_with_content, "content that its file cannot have"),
    "content without a size": (chunks((0, b"x"), size=None), "outside of its file"),
    "content beyond the size": (chunks((4999, b"xx")), "outside of its file"),
    "content out of order": (chunks((10, b"x"), (10, b"x")), "out of order"),
    "content cut off": (chunk_cut, "ghost-file-3.img"),
    "no content of a nameless file": (unnamed_still_there, "without a name"),
    "watch twice": (watch_twice, "twice"),
    "watch on no mount": (watch_mount, "does not have"),
    "watch with two slashes": (watch_path(b"/data//conf"), "kernel would write otherwise"),
    "mark without a mount": (mark(type=2), "another kind"),
    "mark of nothing": (mark(type=1), "another kind"),
    "mark on no mount": (mark(type=2, me=pb.FanotifyMountMarkEntry(mnt_id=4711)), "does not have"),
    "lock of nobody": (lock(pid=2), "not there"),
    "lock on no descriptor": (lock(fd=1000), "not there"),
    "lock of a type": (lock(type=4), "unknown type"),
}


@pytest.mark.parametrize(("change", "says"), DAMAGED.values(), ids=DAMAGED)
def test_images_that_contradict_each_other_are_refused(change: Change, says: str) -> None:
    made = with_every_kind()
    change(made)
    with pytest.raises(CheckpointInvalid, match=says) as refusal:
        refused(made, Security(tty=True))
    assert refusal.value.reason in ("ImageDamaged", "ImagePath")


def test_path_that_leads_upwards_is_refused_by_the_facts() -> None:
    made = with_every_kind()
    watch_path(b"/data/../etc")(made)
    with pytest.raises(CheckpointInvalid, match="leads outside"):
        read(made)


def test_file_on_a_mount_that_is_not_there_is_refused() -> None:
    for change in (part(LOCKED, mnt_id=4711), no_mount):
        made = with_every_kind()
        change(made)
        with pytest.raises(Refused, match="a mount that the dump does not have") as refusal:
            refused(made, Security(tty=True))
        assert refusal.value.reason == "FileExceeds"


def on_volume(number: int, path: str, **fields: Any) -> Change:
    return lambda made: part(number, name=path.encode(), mnt_id=made.mount("/data").mnt_id, **fields)(made)


def wakes(made: SyntheticDump) -> None:
    entry(made, EPOLL).epfd.tfd[0].events = 1 << 29


def large_pipe(made: SyntheticDump) -> None:
    set_data(made, Kind.PIPES_DATA, pb.PipeDataEntry(pipe_id=31, size=2 << 20), b"x")


def lease(path: str) -> Change:
    def change(made: SyntheticDump) -> None:
        lock(flag=8, type=0)(made)
        if path.startswith("/data"):
            on_volume(LOCKED, path)(made)

    return change


def handle_alone(made: SyntheticDump) -> None:
    entry(made, INOTIFY).ify.wd[1].i_ino = 2


def console(made: SyntheticDump) -> None:
    part(SLAVE + 1, name=b"/dev/console", mnt_id=made.mount("/dev/console").mnt_id)(made)


EXCEEDS: dict[str, tuple[Change, Security, str]] = {
    "keeps the machine awake": (wakes, Security(tty=True), "TimerExceeds: .*CAP_BLOCK_SUSPEND"),
    "large pipe": (large_pipe, Security(tty=True), "FileExceeds: .*CAP_SYS_RESOURCE"),
    "data in a FIFO to read": (
        on_volume(FIFO + 1, "/data/fifo", flags=0),
        Security(tty=True),
        "FileExceeds: .*data in the FIFO /data/fifo",
    ),
    "lease on a volume": (lease("/data/x"), Security(tty=True), "FileExceeds: .*CAP_LEASE"),
    "deleted file on a read-only volume": (
        on_volume(DELETED, "/data/gone"),
        Security(tty=True, data_read_only=True),
        "FileExceeds: .*/data/gone.*read-only",
    ),
    "watch by a file handle": (handle_alone, Security(tty=True), "FileExceeds: .*any file of the node"),
    "terminal in the root": (
        lambda made: part(SLAVE + 1, name=b"/etc/shadow", mnt_id=made.mount("/").mnt_id)(made),
        Security(tty=True),
        "FileExceeds: .*/etc/shadow, as a terminal",
    ),
    "terminal on a volume": (on_volume(SLAVE + 1, "/data/0"), Security(tty=True), "FileExceeds: .*/data/0"),
    "terminal of another index": (part(SLAVE + 1, name=b"/dev/pts/1"), Security(tty=True), "FileExceeds: .*/dev/pts/1"),
    "master at a slave": (part(MASTER + 1, name=b"/dev/pts/0"), Security(tty=True), "FileExceeds: .*/dev/pts/0"),
    "/dev/tty elsewhere": (part(CTTY + 1, name=b"/dev/null"), Security(tty=True), "FileExceeds: .*/dev/null"),
    "terminal of another user": (info(1, uid=1001), USER, "IdentityExceeds: .*uid 1001"),
    "terminal of another group": (info(1, gid=1001), USER, "IdentityExceeds: .*gid 1001"),
    "console of a pod without one": (console, Security(), "FileExceeds: .*/dev/console"),
}


@pytest.mark.parametrize(("change", "pod", "says"), EXCEEDS.values(), ids=EXCEEDS)
def test_more_than_the_pod_grants_is_refused(change: Change, pod: Security, says: str) -> None:
    made = with_every_kind(Security(tty=True) if not pod.tty else pod)
    change(made)
    assert re.search(says, refused(made, pod)[0])


GRANTED: dict[str, tuple[Change, Security]] = {
    "keeps the machine awake": (wakes, Security(tty=True, add=("CAP_BLOCK_SUSPEND",))),
    "large pipe": (large_pipe, Security(tty=True, add=("CAP_SYS_RESOURCE",))),
    "data in a FIFO to write": (on_volume(FIFO + 1, "/data/fifo"), Security(tty=True)),
    "empty FIFO": (data(Kind.FIFO_DATA, 4096, 0), Security(tty=True)),
    "lease on a volume": (lease("/data/x"), Security(tty=True, add=("CAP_LEASE",))),
    "lease in the root": (lease("/tmp/x"), Security(tty=True)),
    "deleted file on a volume": (on_volume(DELETED, "/data/gone"), Security(tty=True)),
    "console": (console, Security(tty=True)),
    "own user's terminal": (info(1, uid=1000), USER),
    "anybody's terminal in root's pod": (info(1, uid=1001), Security(tty=True)),
    "watch in the root": (watch_path(b"/etc", "/"), Security(tty=True)),
    "path with spaces": (part(LOCKED, name=b"/tmp/a (deleted)"), Security(tty=True)),
}


@pytest.mark.parametrize(("change", "pod"), GRANTED.values(), ids=GRANTED)
def test_what_the_pod_grants_passes(change: Change, pod: Security) -> None:
    made = with_every_kind(pod)
    change(made)
    assert refused(made, pod) == []
